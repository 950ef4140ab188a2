"""Instructions, written from the scene graph and from relations that hold in the picture.

    "the <image 1> robot stands left of the <image 2> tree. behind the tree is the <image 3> car."

`<image n>` stands right before its noun at the first mention; subjects come up in the order of their numbers.
Only kinds and relations are named: colour and texture are for the reference pictures to say, cells for the
plan. What each sentence says is a move of `moves.py`; how it is put is decided here.
Read next: `thoughts.py` (the chain of thought), `questions.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from macro.scenes.graph import Scene
from macro.scenes.moves import Move, choose_move
from macro.scenes.vocabulary import PHRASES, a_or_an, coloured_nouns, ground_words, plain_nouns, sky_words
from macro.sentence.spans import Truth

_VERBS = ("is", "is", "is", "stands", "stands", "can be seen")
_PUTS = ("put", "place", "set")


def in_order_of_mention(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same scene, its subjects renumbered along a walk from neighbour to neighbour.

    Instructions mention subjects in the order of their numbers, so a walk makes them read naturally.
    """
    feet = np.array([s.position for s in scene.subjects], np.float64).reshape(-1, 2)
    order = [int(rng.integers(len(feet)))]
    while len(order) < len(feet):
        distances = np.linalg.norm(feet - feet[order[-1]], axis=1) * rng.uniform(0.5, 1.5, len(feet))
        distances[order] = np.inf
        order.append(int(distances.argmin()))
    return reordered(scene, order)


def reordered(scene: Scene, order: Sequence[int]) -> Scene:
    """The scene with `scene.subjects[order[i]]` as subject number i + 1."""
    new = {old: i for i, old in enumerate(order)}
    relations = (
        replace(r, subject=new[r.subject], objects=tuple(new[o] for o in r.objects)) for r in scene.relations
    )
    subjects = (replace(scene.subjects[old], number=i + 1) for i, old in enumerate(order))
    return replace(scene, subjects=tuple(subjects), relations=tuple(relations))


def instruction(
    scene: Scene, truth: Truth, rng: np.random.Generator, references: Sequence[Sequence[int]] | None = None
) -> str:
    """A prompt that mentions every subject.

    Args:
        scene: for the surroundings.
        truth: kinds and relations; subjects come up in its order.
        rng: chooses the wording.
        references: the picture numbers of each subject; by default subject n is `<image n>` alone.
    """
    references = references or [(n,) for n in range(1, len(truth.kinds) + 1)]
    return _told(scene, truth, references, _draw_style(rng), rng)


def caption(scene: Scene, truth: Truth, rng: np.random.Generator) -> str:
    """What the picture shows, every subject by its name: an instruction without pictures, told, not ordered."""
    style = _Style("tell", str(rng.choice(["the", "a"])), bare=False)
    return _told(scene, truth, [()] * len(truth.kinds), style, rng)


# ---- style ----


@dataclass(frozen=True)
class _Style:
    """What stays the same through one instruction.

    manner: "tell" (the robot stands ...), "order" (put the robot ...) or "list" (robot left of tree).
    article: before a first mention. bare: kinds are left to the pictures, "<image 3>" alone.
    """

    manner: str
    article: str
    bare: bool


def _draw_style(rng: np.random.Generator) -> _Style:
    manner = str(rng.choice(["tell", "order", "list"], p=[0.5, 0.2, 0.3]))
    articles = {"tell": ["the", "a"], "order": ["the", "the", "a"], "list": ["a", ""]}[manner]
    return _Style(manner, str(rng.choice(articles)), bool(rng.random() < 0.06))


def _told(
    scene: Scene, truth: Truth, references: Sequence[Sequence[int]], style: _Style, rng: np.random.Generator
) -> str:
    """Moves until every subject is mentioned, in one style."""
    speaker = _Speaker(truth, references, style, rng)
    sentences = []
    while speaker.said < len(truth.kinds):
        sentences.append(speaker.say(choose_move(truth, speaker.said, rng)))
    return _with_surroundings(sentences, scene, style, rng)


def _with_surroundings(sentences: list[str], scene: Scene, style: _Style, rng: np.random.Generator) -> str:
    """Joins the sentences; nine times in ten they name the ground, and the sky where it is seen."""
    ground, sky = ground_words(scene.surroundings), sky_words(scene)
    under = f"on {ground} under {sky}" if sky else f"on {ground}"
    way = rng.random()
    if way < 0.35:
        sentences[0] = f"{under}, {sentences[0]}"
    elif style.manner == "list":
        sentences[0] = str(rng.choice(["a picture of ", "a scene with ", "", ""])) + sentences[0]
    if 0.35 <= way < 0.65:
        sentences.append(f"all {under}" if len(scene.subjects) > 1 else under)
    elif 0.65 <= way < 0.9:
        sentences.append(f"{ground} below, {sky} above" if sky else f"{ground} all around")
    return ("; " if style.manner == "list" else ". ").join(sentences) + "."


class _Speaker:
    """Says moves in one style, and remembers up to which number subjects have been mentioned."""

    def __init__(self, truth: Truth, references: Sequence[Sequence[int]], style: _Style, rng):
        self.truth, self.references, self.style, self.rng = truth, references, style, rng
        self.nouns, self.coloured = plain_nouns(truth), coloured_nouns(truth)
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
        names = [self._name(n) for n in numbers]
        return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]

    def _where(self, move: Move) -> str:
        words = [self._name(w) if isinstance(w, int) else self._phrase(w) for w in move.where]
        return " ".join(words).replace(" ,", ",")

    def _name(self, number: int) -> str:
        """With article, markers and kind at the first mention, briefly from then on."""
        kind, numbers = self.truth.kinds[number - 1], self.references[number - 1]
        if number > self.said:
            self.said = number
            markers = " ".join(f"<image {n}>" for n in numbers)
            if self.style.bare:
                return markers
            noun = self._noun(number) or kind
            article = a_or_an(noun).split()[0] if self.style.article == "a" and not numbers else self.style.article
            return " ".join(part for part in (article, markers, noun) if part)
        if self.style.bare:
            return f"<image {numbers[0]}>"
        return f"the {self._noun(number) or f'<image {numbers[0]}> {kind}'}"

    def _noun(self, number: int) -> str | None:
        """A name that nobody shares; without a picture to point at, colours tell two of a kind apart."""
        if self.nouns[number - 1] or self.references[number - 1]:
            return self.nouns[number - 1]
        return self.coloured[number - 1]

    def _phrase(self, words: str) -> str:
        return str(self.rng.choice(PHRASES.get(words, (words,))))

    def _state(self, what: str, where: str, several: bool, new: bool) -> str:
        """That `what` is `where`; only a newcomer can be put there."""
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
