"""Two frames of a clip whose scenes are known: common subjects, what stayed in place, what changed, as text.

For INSET's video branch (arXiv 2605.12305). Read next: `interleaving.py`, `macro/scenes/animation/narration.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from macro.engines.ground_truth import box_of, ground_truths, labels, subject_at
from macro.engines.procedural.interleaving import interleaved, phrases_of
from macro.engines.procedural.vision import UNKNOWN
from macro.engines.provider import Answers, Images, InterleavedCaption, Match, Region
from macro.scenes.animation import narration
from macro.scenes.graph import Scene, Subject
from macro.scenes.language import captions
from macro.scenes.language.lexicon import phrase_of
from macro.sentence.spans import Truth
from macro.utils.errors import ItemError

SEEN = 0.002  # of the image: least visible area of a subject that counts
BACKGROUND = 0.02  # ORB's features lie on objects: weight of a pixel of ground or sky against one of an object
POSED = 0.15  # of the pose's 0..1: least noticeable difference
DEEDS = 3  # changes in a caption at most


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two frames with their truths; `common` holds (index before, index after) of subjects visible in both."""

    before: Scene
    after: Scene
    then: Truth
    now: Truth
    common: tuple[tuple[int, int], ...]


def _on_pairs(before: Images, after: Images, answer: Callable[[int, _Pair], object]) -> list:
    """`answer(index, pair)` for pairs whose scenes are known, an `ItemError` for the others."""
    out: list = [UNKNOWN] * len(before)
    for i, (first, second) in enumerate(zip(before, after, strict=True)):
        if first.scene is not None and second.scene is not None:
            alike = first.pixels.shape == second.pixels.shape
            out[i] = None if alike else ItemError("the two frames are not of one size")
    places = [i for i, fault in enumerate(out) if fault is None]
    found = ground_truths([frames[i] for i in places for frames in (before, after)])
    for i, then, now in zip(places, found[::2], found[1::2], strict=True):
        one, two = before[i].scene, after[i].scene
        out[i] = answer(i, _Pair(one, two, then, now, _common(one, two, then, now)))
    return out


def _common(before: Scene, after: Scene, then: Truth, now: Truth) -> tuple[tuple[int, int], ...]:
    earlier = narration.tracked_subjects(before, after)
    return tuple((i, j) for j, i in sorted(earlier.items()) if min(then.masks[i].mean(), now.masks[j].mean()) >= SEEN)


def match(before: Images, after: Images) -> Answers[list[Match]]:
    """Every subject that is visible in both, by its name in the second."""

    def answer(i: int, pair: _Pair) -> list[Match]:
        names = labels(pair.now)
        return [
            Match(names[b], Region(names[b], box_of(pair.then, a)), Region(names[b], box_of(pair.now, b)))
            for a, b in pair.common
        ]

    return _on_pairs(before, after, answer)


def static_share(before: Images, after: Images) -> Answers[float]:
    """Share of the image that stayed in place: pixels of subjects that neither moved nor changed in visibility, and of
    the background where both frames show it, over all; 0 if the camera moved.
    """

    def answer(i: int, pair: _Pair) -> float:
        if pair.before.camera != pair.after.camera:
            return 0.0
        things, bare = pair.then.masks.any(0) | pair.now.masks.any(0), ~pair.then.masks.any(0) & ~pair.now.masks.any(0)
        kept = sum(
            int((pair.then.masks[a] & pair.now.masks[b]).sum())
            for a, b in pair.common
            if not _has_moved_at_all(pair.before.subjects[a], pair.after.subjects[b])
        )
        return float((kept + BACKGROUND * bare.sum()) / (things.sum() + BACKGROUND * bare.sum()))

    return _on_pairs(before, after, answer)


def _has_moved_at_all(one: Subject, two: Subject) -> bool:
    def place(s: Subject) -> np.ndarray:
        return np.array([*s.position, s.height, s.yaw, s.pose, s.scale])

    return bool(np.abs(place(one) - place(two)).max() > 1e-3)


def changed(before: Images, after: Images) -> Answers[bool]:
    """Whether any common subject has acted or changed its pose: light and camera do not count."""
    return _on_pairs(before, after, lambda i, pair: bool(_deeds(pair)))


def _deeds(pair: _Pair) -> list[narration.Change]:
    """Actions of the subjects that both frames show, the most striking first."""
    seen = {b: a for a, b in pair.common}
    told = narration.changes(pair.before, pair.after)
    found = [change for change in told if change.subject in seen and change.words not in ("comes", "is gone")]
    still = seen.keys() - {change.subject for change in found}
    turns = {b: abs(pair.after.subjects[b].pose - pair.before.subjects[seen[b]].pose) for b in sorted(still)}
    found += [narration.Change(b, "changes its pose", turn) for b, turn in turns.items() if turn >= POSED]
    return sorted(found, key=lambda change: -change.size)


def narrate(
    before: Images, after: Images, matches: Sequence[Sequence[Match]], seeds: Sequence[int]
) -> Answers[InterleavedCaption]:
    """A caption of the second frame that names each match by colour and kind, then some of their actions."""

    def answer(i: int, pair: _Pair) -> InterleavedCaption | ItemError:
        rng = np.random.default_rng([seeds[i], 7])
        regions = [found.after for found in matches[i]]
        subjects = [subject_at(pair.now, region) for region in regions]
        if None in subjects:
            return ItemError("a match shows nothing in the second frame")
        phrases = phrases_of([phrase_of(pair.now, subject, full=False) for subject in subjects])
        told = interleaved(pair.after, pair.now, regions, phrases, rng)
        if isinstance(told, ItemError):
            return told
        return InterleavedCaption(" ".join([told.caption, *_told_deeds(pair, set(subjects), phrases)]), told.phrases)

    return _on_pairs(before, after, answer)


def _told_deeds(pair: _Pair, told: set[int], phrases: Sequence[str]) -> list[str]:
    """ "the dog walks towards the tree.", if both subjects are in the caption and have a name besides their phrase."""
    called = narration.names((pair.before, pair.after))
    present = {called[pair.after.subjects[place].kind, pair.after.subjects[place].palette] for place in told}
    # "first dog" would not say which of two it is.
    unsaid = [*phrases, *(name for name in called.values() if name not in present or " " in name)]
    out = []
    for deed in _deeds(pair):
        subject = pair.after.subjects[deed.subject]
        sentence = f"the {called[subject.kind, subject.palette]} {deed.words}."
        if not any(captions.count_phrase(sentence, name) for name in unsaid):
            out.append(sentence)
    return out[:DEEDS]
