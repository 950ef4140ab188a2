"""Two frames of a clip whose scenes are known: what is in both, what stayed where it was, what changed, in words.

For INSET's video branch (arXiv 2605.12305). A subject keeps its number and its kind from frame to frame.
Read next: `merge.py`, `macro/scenes/motion.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from macro.engines.known import box_of, labels, subject_at, truths
from macro.engines.procedural.look import UNKNOWN
from macro.engines.procedural.merge import interleaved, phrases_of
from macro.engines.procedural.write import phrase_of
from macro.engines.sources import Picture
from macro.engines.stages import Fault, Interleaved, Match, Region
from macro.scenes import words
from macro.scenes.annotate import centres
from macro.scenes.graph import Scene, Subject
from macro.scenes.vocabulary import ground_distances
from macro.sentence.spans import Truth

SEEN = 0.002  # of the picture: what shows less is not there
BACKGROUND = 0.25  # local features lie on things: a pixel of the ground or the sky counts so much of one of theirs
TURNED, POSED, MOVED = 0.35, 0.15, 0.15  # radians, of the pose's 0..1, of the subject's own size: what one notices
_ASIDE, _NEARER = 0.05, 0.9  # of the picture's width; of the distance that it had


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two frames with their truths; `common` are (place before, place after) of who is seen in both."""

    before: Scene
    after: Scene
    then: Truth
    now: Truth
    common: tuple[tuple[int, int], ...]


def _on_pairs(
    before: Sequence[Picture], after: Sequence[Picture], answer: Callable[[int, _Pair], object]
) -> list:
    """`answer(place, pair)` for pairs whose scenes are known, faults for the others."""
    out: list = [UNKNOWN] * len(before)
    for i, (first, second) in enumerate(zip(before, after, strict=True)):
        if first.scene is not None and second.scene is not None:
            alike = first.pixels.shape == second.pixels.shape
            out[i] = None if alike else Fault("the two frames are not of one size")
    places = [i for i, fault in enumerate(out) if fault is None]
    found = truths([frames[i] for i in places for frames in (before, after)])
    for i, then, now in zip(places, found[::2], found[1::2], strict=True):
        one, two = before[i].scene, after[i].scene
        out[i] = answer(i, _Pair(one, two, then, now, _common(one, two, then, now)))
    return out


def _common(before: Scene, after: Scene, then: Truth, now: Truth) -> tuple[tuple[int, int], ...]:
    later = {(subject.number, subject.kind): place for place, subject in enumerate(after.subjects)}
    same = (
        (place, later[subject.number, subject.kind])
        for place, subject in enumerate(before.subjects)
        if (subject.number, subject.kind) in later
    )
    return tuple((i, j) for i, j in same if min(then.masks[i].mean(), now.masks[j].mean()) >= SEEN)


def match(before: Sequence[Picture], after: Sequence[Picture]) -> list[list[Match] | Fault]:
    """Every subject that is seen in both, by its name in the second."""

    def answer(i: int, pair: _Pair) -> list[Match]:
        names = labels(pair.after)
        return [
            Match(names[b], Region(names[b], box_of(pair.then, a)), Region(names[b], box_of(pair.now, b)))
            for a, b in pair.common
        ]

    return _on_pairs(before, after, answer)


def stillness(before: Sequence[Picture], after: Sequence[Picture]) -> list[float | Fault]:
    """Share of what is seen that stayed: pixels of subjects that neither moved nor were covered or laid bare, and of
    the background where both frames show it, over all; nothing stays where the camera moved.
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


def changed(before: Sequence[Picture], after: Sequence[Picture]) -> list[bool | Fault]:
    """Whether anything that both show has noticeably turned, moved, or another pose: light and camera do not count."""
    return _on_pairs(
        before,
        after,
        lambda i, pair: any(_changes(pair.before.subjects[a], pair.after.subjects[b]) for a, b in pair.common),
    )


def _changes(one: Subject, two: Subject) -> set[str]:
    turn = abs((two.yaw - one.yaw + np.pi) % (2 * np.pi) - np.pi)
    step = np.hypot(*np.subtract(two.position, one.position))
    rise = two.height - one.height
    noticed = {
        "turned": turn >= TURNED,
        "posed": abs(two.pose - one.pose) >= POSED,
        "moved": step >= MOVED * one.scale,
        "risen": rise >= MOVED * one.scale,
        "sunk": -rise >= MOVED * one.scale,
    }
    return {name for name, is_so in noticed.items() if is_so}


def narrate(
    before: Sequence[Picture],
    after: Sequence[Picture],
    matches: Sequence[Sequence[Match]],
    seeds: Sequence[int],
) -> list[Interleaved | Fault]:
    """A caption of the second frame that calls each match by its colour and kind, then what up to three of them did."""

    def answer(i: int, pair: _Pair) -> Interleaved | Fault:
        rng = np.random.default_rng([seeds[i], 7])
        regions = [found.after for found in matches[i]]
        subjects = [subject_at(pair.now, region) for region in regions]
        if None in subjects:
            return Fault("a match shows nothing in the second frame")
        phrases = phrases_of([phrase_of(pair.after.subjects[subject], full=False) for subject in subjects])
        told = interleaved(pair.after, pair.now, regions, phrases, rng)
        if isinstance(told, Fault):
            return told
        return Interleaved(" ".join([told.caption, *_deeds(pair, set(subjects), phrases, rng)]), told.phrases)

    return _on_pairs(before, after, answer)


def _deeds(pair: _Pair, told: set[int], phrases: Sequence[str], rng: np.random.Generator) -> list[str]:
    """ "the dog has turned and moved to the left.", of those that one word names."""
    names = labels(pair.after)
    able = [
        (a, b)
        for a, b in pair.common
        if b in told
        and not any(words.times_said(names[b], phrase) for phrase in phrases)
        and _changes(pair.before.subjects[a], pair.after.subjects[b])
    ]
    chosen = sorted(rng.permutation(len(able))[:3])
    return [f"the {names[able[k][1]]} has {_deed(pair, *able[k])}." for k in chosen]


def _deed(pair: _Pair, a: int, b: int) -> str:
    changes = _changes(pair.before.subjects[a], pair.after.subjects[b])
    said = [
        ("turned", "turned"),
        ("posed", "changed its pose"),
        ("moved", _way(pair, a, b)),
        ("risen", "gone up"),
        ("sunk", "come down"),
    ]
    verbs = [verb for name, verb in said if name in changes]
    return " and ".join([", ".join(verbs[:-1]), verbs[-1]]) if len(verbs) > 1 else verbs[0]


def _way(pair: _Pair, a: int, b: int) -> str:
    """Where to, as one sees it, unless the camera moved too."""
    if pair.before.camera != pair.after.camera:
        return "moved"
    aside = float(centres(pair.now.amodal)[b][0] - centres(pair.then.amodal)[a][0])
    if abs(aside) >= _ASIDE:
        return f"moved to the {'left' if aside < 0 else 'right'}"
    far = ground_distances(pair.after)[b] / ground_distances(pair.before)[a]
    if far <= _NEARER:
        return "come nearer"
    return "gone farther away" if far >= 1 / _NEARER else "moved"
