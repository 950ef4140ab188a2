"""A second layout of the same instruction: what an instruction leaves open, measured.

An instruction says who stands left of or behind whom, not in which cells; so the layout of a perfect planner
agrees with the truth no better than two layouts drawn independently do. Here is the second one: the same
subjects under a new camera, turned anew and sent to new places at random, then exchanged until all that the
instruction says holds (and until the order of mention, a walk from neighbour to neighbour, could be what it
is). The picture decides: the scene is rendered, and kept only if the relations read off it include every
stated one.

Read next: `macro/scenes/layout/placement.py` (slots), `macro/scenes/ground_truth/relations.py`, `scenes.py`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from macro.scenes.graph import Camera, Relation, Scene, Subject
from macro.scenes.ground_truth import annotate
from macro.scenes.language.lexicon import PHRASES, plain_nouns
from macro.scenes.layout.placement import picture_box, put, put_on, share, slots, stands_on, view_of
from macro.scenes.render import raycast
from macro.sentence.grid import Grid
from macro.sentence.spans import Truth

TRIES = 10  # renders at most
EXCHANGES = 600
_STRIDE = 3.0  # the walk goes to a neighbour at most this many times as far away as the nearest

Claims = frozenset[tuple]  # (i, name, j) or (i, "between", (j, k)) in subject numbers


def stated(prompt: str, truth: Truth) -> Claims:
    """The relations of the truth that the prompt states.

    Those whose words stand, within one sentence, between the subject and the others, or before both ("behind
    the tree is the car"): every one that is stated, and now and then another that holds anyway.

    Args:
        prompt: with `<image n>` before the first mention of subject n.
    """
    names = {n: [rf"<image {n}>"] for n in range(1, len(truth.kinds) + 1)}
    for n, noun in enumerate(plain_nouns(truth), 1):
        names[n] += [rf"\b{noun}\b"] if noun else []
    found = set()
    for sentence in re.split(r"[.;]", prompt):
        there = {n: places for n, words in names.items() if (places := _places(words, sentence))}
        for i, name, j in truth.relations:
            others = j if isinstance(j, tuple) else (j,)
            if {i, *others} <= there.keys() and _says(sentence, name, there[i], [there[n] for n in others]):
                found.add((i, name, j))
    return frozenset(found)


def _places(patterns: Iterable[str], sentence: str) -> list[int]:
    return [match.start() for pattern in patterns for match in re.finditer(pattern, sentence)]


def _says(sentence: str, name: str, subject: list[int], others: list[list[int]]) -> bool:
    """Whether the words of a relation can tie the mentions of a subject to those of the others."""
    row = {"left of": "from left to right", "right of": "from right to left"}.get(name)
    if row and row in sentence:
        return True
    for word in _places([rf"\b{phrase}\b" for phrase in PHRASES.get(name, (name,))], sentence):
        follow = all(any(place > word for place in places) for places in others)
        if follow and (min(subject) < word or sentence[:word].strip() == ""):
            return True
    return False


def another(scene: Scene, truth: Truth, prompt: str, rng: np.random.Generator, size: int = 128) -> Grid | None:
    """The layout of another scene of these subjects of which the prompt is as true; None if none is found."""
    claims = stated(prompt, truth)
    riders = {i: j for i, a in enumerate(scene.subjects) for j, b in enumerate(scene.subjects) if stands_on(a, b)}
    for _ in range(TRIES):
        camera = view_of(rng, len(scene.subjects))
        subjects = _arranged(rng, scene.subjects, riders, camera, claims)
        if subjects is None:
            continue
        on = tuple(Relation("on", i, (j,)) for i, j in riders.items())
        redrawn = replace(scene, subjects=subjects, camera=camera, relations=on, seed=int(rng.integers(2**31)))
        grid, found = _seen(redrawn, size)
        if claims <= found and len(np.unique(grid[grid > 0])) == len(subjects):
            return grid
    return None


def exchanged_picture(scene: Scene, i: int, j: int, size: int = 128) -> UInt8[np.ndarray, "h w 3"]:
    """The scene with subjects `i` and `j` (from 0) in each other's places, as large as the other was."""
    subjects = list(scene.subjects)
    for new, old in ((i, j), (j, i)):
        place = scene.subjects[old]
        moved = replace(scene.subjects[new], position=place.position, height=place.height)
        ratio = _area(place, scene.camera) / _area(moved, scene.camera)
        subjects[new] = replace(moved, scale=moved.scale * ratio**0.5)
    batch = raycast.stack([raycast.compile_scene(replace(scene, subjects=tuple(subjects)))])
    return np.asarray(raycast.render(batch, size, size)["pixels"])[0]


def _area(subject: Subject, camera: Camera) -> float:
    u0, v0, u1, v1 = picture_box(camera, subject)
    return float((u1 - u0) * (v1 - v0))


def _seen(scene: Scene, size: int) -> tuple[Grid, set]:
    """Layout and relations of a scene, by its picture."""
    batch = raycast.stack([raycast.compile_scene(scene)])
    out = {name: np.asarray(values)[0] for name, values in raycast.render(batch, size, size, 1).items()}
    truth = annotate.truth_of(scene, out["ids"], np.asarray(raycast.amodal(batch, size, size))[0], out["depth"])
    return annotate.layout(truth.masks, truth.boxes), set(truth.relations)


# ---- placing ----


@dataclass(frozen=True)
class _Place:
    """A subject somewhere: its extent in the picture, and its foot on the ground."""

    left: float
    right: float
    foot: float
    ground: tuple[float, float]

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2


def _arranged(
    rng: np.random.Generator,
    subjects: tuple[Subject, ...],
    riders: dict[int, int],
    camera: Camera,
    claims: Claims,
) -> tuple[Subject, ...] | None:
    """The subjects at new places where the claims seem to hold; None if exchanges did not get there."""
    turned = [
        replace(s, yaw=float(rng.choice([-1, 1]) * rng.uniform(0.35, 1.15)), pose=float(rng.random())) for s in subjects
    ]
    standing = [i for i in range(len(subjects)) if i not in riders]
    size = share(len(standing) + 0.5 * len(riders))
    places = slots(rng, len(standing), size)
    options = {
        (i, slot): put(turned[i], camera, u, v, width, size * rng.uniform(0.85, 1.12))
        for i in standing
        for slot, (u, v, width) in enumerate(places)
    }
    seats = {key: _place(subject, camera) for key, subject in options.items()}
    order = [int(slot) for slot in rng.permutation(len(standing))]
    wrong = _wrong(standing, order, seats, riders, claims)
    for _ in range(EXCHANGES):
        if not wrong or len(standing) < 2:
            break
        a, b = rng.choice(len(standing), 2, replace=False)
        tried = list(order)
        tried[a], tried[b] = tried[b], tried[a]
        now = _wrong(standing, tried, seats, riders, claims)
        # Now and then one step back, so as not to stay where no single exchange helps.
        if now <= wrong or (now == wrong + 1 and rng.random() < 0.05):
            order, wrong = tried, now
    if wrong:
        return None
    placed = list(turned)
    for i, slot in zip(standing, order, strict=True):
        placed[i] = options[i, slot]
    for rider, support in riders.items():
        placed[rider] = put_on(turned[rider], placed[support], rng, rng.uniform(0.95, 1.25))
    return tuple(placed)


def _place(subject: Subject, camera: Camera) -> _Place:
    u0, _, u1, v1 = picture_box(camera, subject)
    return _Place(float(u0), float(u1), float(v1), tuple(map(float, subject.position)))


def _wrong(standing: list[int], order: list[int], seats: dict, riders: dict[int, int], claims: Claims) -> int:
    """How many claims, and steps of the walk, do not hold with subject `standing[k]` in slot `order[k]`."""
    at = {i: seats[i, slot] for i, slot in zip(standing, order, strict=True)}
    at |= {rider: at[support] for rider, support in riders.items()}
    broken = sum(
        not _holds(name, at[i - 1], [at[n - 1] for n in (j if isinstance(j, tuple) else (j,))])
        for i, name, j in claims
        if name != "on"
    )
    return broken + _strides(np.array([at[i].ground for i in range(len(at))]))


def _holds(name: str, a: _Place, others: list[_Place]) -> bool:
    """Whether a relation is likely to be read off the picture (`seen.py` has the rules)."""
    b = others[0]
    if name == "between":
        low, high = sorted(others, key=lambda place: place.middle)
        line, along = high.middle - low.middle, a.middle - low.middle
        expected = low.foot + (high.foot - low.foot) * along / max(line, 1e-6)
        return _left(low, a) and _left(a, high) and 0.25 <= along / line <= 0.75 and abs(a.foot - expected) < 0.2 * line
    shared = min(a.right, b.right) - max(a.left, b.left)
    aligned = shared >= 0.4 * min(a.right - a.left, b.right - b.left)
    gap = max(a.left, b.left) - min(a.right, b.right)
    return {
        "left of": _left(a, b),
        "right of": _left(b, a),
        "in front of": aligned and a.foot > b.foot + 0.03,
        "behind": aligned and b.foot > a.foot + 0.03,
        "next to": gap <= 0.06 and abs(a.foot - b.foot) < 0.1 and (_left(a, b) or _left(b, a)),
        "far from": bool(np.hypot(a.middle - b.middle, a.foot - b.foot) >= 0.55),
    }.get(name, True)


def _left(a: _Place, b: _Place) -> bool:
    return a.right <= b.middle and a.middle <= b.left


def _strides(feet: Float[np.ndarray, "s 2"]) -> int:
    """How many steps of the walk 1, 2, 3, ... pass by a subject that is far nearer."""
    away = np.linalg.norm(feet[:, None] - feet[None], axis=-1)
    return sum(bool(away[n, n + 1] > _STRIDE * away[n, n + 1 :].min() + 1e-6) for n in range(len(feet) - 1))
