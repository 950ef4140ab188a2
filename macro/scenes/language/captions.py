"""Instructions and captions, generated from the scene graph and the relations that hold in the image.

    "the <image 1> robot stands left of the <image 2> tree. behind the tree is the <image 3> car."

`<image n>` directly precedes its noun at the first mention; subjects are mentioned in the order of their numbers.
Only kinds and relations are named: the reference images show colour and texture, the plan holds the cells. The
content of each sentence is a move of `sentence_templates.py`; its wording is chosen here.
Read next: `chain_of_thought.py` (the chain of thought), `questions.py`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from macro.scenes.graph import Scene
from macro.scenes.language.lexicon import (
    PHRASES,
    a_or_an,
    distinct_nouns,
    ground_words,
    listed,
    plain_nouns,
    sky_words,
)
from macro.scenes.language.sentence_templates import Move, choose_move
from macro.sentence.spans import Truth

_VERBS = ("is", "is", "is", "stands", "stands", "can be seen")
_PUTS = ("put", "place", "set")


def in_order_of_mention(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same scene, its subjects renumbered in `order_of_mention`."""
    return reordered(scene, order_of_mention(scene, rng))


def order_of_mention(scene: Scene, rng: np.random.Generator) -> list[int]:
    """Subject indices along a walk from neighbour to neighbour.

    Instructions mention subjects in the order of their numbers; a walk makes that order natural.
    """
    feet = np.array([s.position for s in scene.subjects], np.float64).reshape(-1, 2)
    order = [int(rng.integers(len(feet)))]
    while len(order) < len(feet):
        distances = np.linalg.norm(feet - feet[order[-1]], axis=1) * rng.uniform(0.5, 1.5, len(feet))
        distances[order] = np.inf
        order.append(int(distances.argmin()))
    return order


def reordered(scene: Scene, order: Sequence[int]) -> Scene:
    """The scene with `scene.subjects[order[i]]` as subject number i + 1."""
    subjects = (replace(scene.subjects[old], number=i + 1) for i, old in enumerate(order))
    return replace(scene, subjects=tuple(subjects))


def instruction(
    scene: Scene, truth: Truth, rng: np.random.Generator, references: Sequence[Sequence[int]] | None = None
) -> str:
    """A prompt that mentions every subject.

    Args:
        scene: for the surroundings.
        truth: kinds and relations; subjects are mentioned in its order.
        rng: chooses the wording.
        references: the image numbers of each subject; by default subject n is `<image n>` alone.
    """
    references = references or [(n,) for n in range(1, len(truth.kinds) + 1)]
    style = _draw_style(rng)
    return _told(scene, truth, _shown(truth, references, style), style, rng)


def caption(
    scene: Scene, truth: Truth, rng: np.random.Generator, described: Mapping[int, str] = MappingProxyType({})
) -> str:
    """A caption of the image that names every subject: a declarative instruction without images.

    Args:
        described: phrases without an article, such as "striped red car", for the first mention of some subjects, by
            their numbers.
    """
    style = _Style("tell", str(rng.choice(["the", "a"])), bare=False)
    names = _named(truth, style.article)
    first = tuple(a_or_an(described[n]) if n in described else name for n, name in enumerate(names.first, 1))
    return _told(scene, truth, replace(names, first=first), style, rng)


def caption_with(scene: Scene, truth: Truth, rng: np.random.Generator, phrases: Sequence[str]) -> str:
    """A caption of the image with `phrases[n - 1]` for subject n, each occurring exactly once in the caption.

    Phrases have no article, are all different and none is a part of another. A subject without another name ("the
    dog" for a "red dog") is mentioned only once.
    """
    style = _Style("tell", "a", bare=False)
    first = tuple(map(a_or_an, phrases))
    again = tuple(
        name if name and not any(count_phrase(name, phrase) for phrase in phrases) else None
        for name in _named(truth, "the").again
    )
    return _told(scene, truth, _Names(first, again), style, rng)


def count_phrase(text: str, phrase: str) -> int:
    """The number of occurrences of a phrase in a text, as whole words."""
    return len(re.findall(rf"(?<!\w){re.escape(phrase)}(?!\w)", text))


# ---- names ----


@dataclass(frozen=True)
class _Names:
    """Each subject's name at its first mention, and at later ones; None: mentioned once only."""

    first: tuple[str, ...]
    again: tuple[str | None, ...]


def _shown(truth: Truth, references: Sequence[Sequence[int]], style: "_Style") -> _Names:
    """First markers with article and kind, or alone; later kinds, with a marker where two share one."""
    markers = [" ".join(f"<image {n}>" for n in numbers) for numbers in references]
    if style.bare:
        return _Names(tuple(markers), tuple(f"<image {numbers[0]}>" for numbers in references))
    first = (f"{style.article} {mark} {kind}".strip() for mark, kind in zip(markers, truth.kinds, strict=True))
    again = (
        f"the {noun or f'<image {numbers[0]}> {kind}'}"
        for noun, numbers, kind in zip(plain_nouns(truth), references, truth.kinds, strict=True)
    )
    return _Names(tuple(first), tuple(again))


def _named(truth: Truth, article: str) -> _Names:
    """Kinds, with a colour where two share one; subjects that share both are mentioned only once."""
    nouns = distinct_nouns(truth)
    whole = [noun or kind for noun, kind in zip(nouns, truth.kinds, strict=True)]
    first = tuple(a_or_an(noun) if article == "a" else f"the {noun}" for noun in whole)
    return _Names(first, tuple(noun and f"the {noun}" for noun in nouns))


# ---- style ----


@dataclass(frozen=True)
class _Style:
    """The style, constant within one instruction.

    manner: "tell" (the robot stands ...), "order" (put the robot ...) or "list" (robot left of tree).
    article: before a first mention. bare: kinds are left to the images, "<image 3>" alone.
    """

    manner: str
    article: str
    bare: bool


def _draw_style(rng: np.random.Generator) -> _Style:
    manner = str(rng.choice(["tell", "order", "list"], p=[0.5, 0.2, 0.3]))
    articles = {"tell": ["the", "a"], "order": ["the", "the", "a"], "list": ["a", ""]}[manner]
    return _Style(manner, str(rng.choice(articles)), bool(rng.random() < 0.06))


def _told(scene: Scene, truth: Truth, names: _Names, style: _Style, rng: np.random.Generator) -> str:
    """Moves until every subject is mentioned, in one style."""
    speaker = _Speaker(names, style, rng)
    mute = frozenset(n for n, again in enumerate(names.again, 1) if again is None)
    sentences = []
    while speaker.said < len(truth.kinds):
        sentences.append(speaker.say(choose_move(truth, speaker.said, rng, mute)))
    return _with_surroundings(sentences, scene, style, rng)


def _with_surroundings(sentences: list[str], scene: Scene, style: _Style, rng: np.random.Generator) -> str:
    """Joins the sentences; with probability .9 they name the ground, and the sky where it is visible."""
    ground, sky = ground_words(scene.surroundings), sky_words(scene)
    under = f"on {ground} under {sky}" if sky else f"on {ground}"
    way = rng.random()
    if way < 0.35:
        sentences[0] = f"{under}, {sentences[0]}"
    elif style.manner == "list":
        sentences[0] = str(rng.choice(["an image of ", "a scene with ", "", ""])) + sentences[0]
    if 0.35 <= way < 0.65:
        sentences.append(f"all {under}" if len(scene.subjects) > 1 else under)
    elif 0.65 <= way < 0.9:
        sentences.append(f"{ground} below, {sky} above" if sky else f"{ground} all around")
    return ("; " if style.manner == "list" else ". ").join(sentences) + "."


class _Speaker:
    """Renders moves as text in one style, and tracks up to which number subjects have been mentioned."""

    def __init__(self, names: _Names, style: _Style, rng: np.random.Generator):
        self.names, self.style, self.rng = names, style, rng
        self.said = 0

    def say(self, move: Move) -> str:
        new = move.subjects[0] > self.said
        several = len(move.subjects) > 1
        if move.inverted:
            where = self._where(move)
            return self._state_inverted(where, self._list(move.subjects))
        what = self._list(move.subjects)
        return self._state(what, self._where(move), several, new)

    def _list(self, numbers: Sequence[int]) -> str:
        return listed([self._name(n) for n in numbers])

    def _where(self, move: Move) -> str:
        words = [self._name(w) if isinstance(w, int) else self._phrase(w) for w in move.where]
        return " ".join(words).replace(" ,", ",")

    def _name(self, number: int) -> str:
        if number <= self.said:
            return self.names.again[number - 1]
        self.said = number
        return self.names.first[number - 1]

    def _phrase(self, words: str) -> str:
        return str(self.rng.choice(PHRASES.get(words, (words,))))

    def _state(self, what: str, where: str, several: bool, new: bool) -> str:
        """A sentence that `what` is `where`; only a new subject can be "put" there."""
        if not where:
            return {"tell": f"there is {what}", "order": f"draw {what}", "list": what}[self.style.manner]
        if self.style.manner == "list":
            return f"{what} {where}"
        if self.style.manner == "order" and new:
            return f"{self.rng.choice(_PUTS)} {what} {where}"
        return f"{what} {'are' if several else self.rng.choice(_VERBS)} {where}"

    def _state_inverted(self, where: str, what: str) -> str:
        if self.style.manner == "order":
            return f"{where}, {self.rng.choice(_PUTS)} {what}"
        return f"{where} {self.rng.choice(('is', 'stands'))} {what}"
