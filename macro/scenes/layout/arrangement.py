"""Arrangements: subjects of given sizes get positions on the ground, apart from each other and visible enough.

Subjects are placed one after the other, large ones first. For each, `_CANDIDATES` foot points are drawn in the image
where it would be large enough and inside the frame, and all are tested in one go: against collisions with those that
stand already (`collision.py`), against hiding them and being hidden. A subject and what stands on it move as one.
`arrange` draws another camera if somebody finds no place; `in_rows` always has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from macro.scenes.graph import Camera, Subject
from macro.scenes.layout.collision import DIRECTIONS, extents_of, extents_of_all, hull_of
from macro.scenes.layout.placement import (
    CORNERS,
    SHRUNK,
    boxes_of,
    ground_points,
    hidden_shares,
    horizon_of,
    natural_scale,
    put_on,
    share,
    slots,
    view_of,
    world_box,
)
from macro.scenes.render.scene_compiler import camera_basis

SMALLEST, MOST_HIDDEN = 0.012, 0.42  # of the image's area; of a subject's box
ATTEMPTS = 12
_CANDIDATES = 96
_BACK = 3  # subjects that choose again if one finds no place
_HIDDEN = 0.3  # of a subject's box, while others are still to come
_OVERLAPPING = 0.3  # share of the subjects that may stand anywhere, also where they hide or are hidden
_APART = 0.03  # metres between subjects
_LARGEST = 0.66  # of the image's side, at the usual distance
_LEAST = 0.14  # of the usual area of a subject: farther away it would look lost among a few
_FRAME = 0.02  # of the image's side, left free at its edges
_ROOT, _CROWDED = 0.25, 0.08  # exponents of `toy_size` for one subject and for twelve
_VARIED = (0.75, 1.33)  # times its usual one is a kind's real size in one scene


def sized(rng: np.random.Generator, subjects: Sequence[Subject], exponent: float) -> list[Subject]:
    """The subjects in the sizes of their kinds. Those of one kind are of one size: the farther one looks smaller."""
    own = {kind: float(rng.uniform(*_VARIED)) ** exponent for kind in dict.fromkeys(s.kind for s in subjects)}
    return [replace(s, scale=natural_scale(s.kind, exponent) * own[s.kind]) for s in subjects]


def arranged(
    rng: np.random.Generator, subjects: Sequence[Subject], riders: dict[int, int]
) -> tuple[Camera, list[Subject]]:
    """A camera, and the subjects at random positions before it where none collides with another.

    Args:
      riders: {rider: support}, indices into `subjects`; every rider must find room on its support.
    """
    exponent = _ROOT + (_CROWDED - _ROOT) * (len(subjects) - 1) / 11
    extents_of_all([(s.kind, s.pose, s.yaw) for s in subjects])  # all in one go, for all that follows
    best, farther = None, 1.0
    for _ in range(ATTEMPTS):
        scaled = sized(rng, subjects, exponent)
        camera = view_of(rng, len(subjects), farther * usual_size(scaled))
        placed = _composed(rng, camera, scaled, riders)
        if placed is not None:
            worst = _faults(camera, placed, riders)
            if worst == 0:
                return camera, placed
            if best is None or worst < best[0]:
                best = worst, camera, placed
        # A crowd of very different sizes finds no room: sizes come nearer to each other, all a little smaller.
        exponent, farther = 0.9 * exponent, 1.03 * farther
    return best[1:] if best else in_rows(rng, sized(rng, subjects, exponent))


def usual_size(subjects: Sequence[Subject]) -> float:
    """Side of the square that a subject of these fills on average, metres; more where one alone needs it."""
    sides = np.array([(e.box[1] - e.box[0])[:2] * s.scale for s in subjects for e in [extents_of(s)]])
    filled = np.array([extents_of(s).filled for s in subjects])
    average = float(np.sqrt((sides[:, 0] * sides[:, 1] * filled / 0.7).mean()))
    return max(average, float(sides.max()) * share(len(subjects)) / _LARGEST)


def _faults(camera: Camera, subjects: Sequence[Subject], riders: dict[int, int]) -> float:
    """The penalty of a composition: 0 if all subjects are large enough and visible enough."""
    boxes = boxes_of(camera, subjects)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    hidden = hidden_shares(camera, subjects)
    hidden[list(riders.values())] -= 0.1  # a subject on a table hides some of it, as intended
    seen = areas * (1 - hidden) * [extents_of(s).filled for s in subjects]
    return float(np.maximum(hidden - MOST_HIDDEN, 0).sum() + np.maximum(1 - seen / SMALLEST, 0).sum())


# ---- one after the other ----


@dataclass(frozen=True)
class _Stack:
    """Subjects that stand on one another, relative to the lowest one's foot.

    `hull` holds them all, `boxes` and `filled` are each one's; `seen` is the side of the smallest's square, metres.
    """

    members: tuple[int, ...]
    subjects: tuple[Subject, ...]
    hull: Float[np.ndarray, "d"]
    boxes: Float[np.ndarray, "m 2 3"]
    filled: Float[np.ndarray, "m"]
    seen: float

    @classmethod
    def of(cls, members: Sequence[int], subjects: Sequence[Subject]) -> "_Stack":
        boxes = np.array([world_box(s) for s in subjects])
        filled, (wide, high, _) = np.array([extents_of(s).filled for s in subjects]), (boxes[:, 1] - boxes[:, 0]).T
        seen = float((wide * high * filled).min()) ** 0.5
        hull = np.max([hull_of(s) for s in subjects], 0)
        return cls(tuple(members), tuple(subjects), hull, boxes, filled, seen)

    def at(self, x: float, z: float) -> dict[int, Subject]:
        """The members, standing there."""
        return {
            n: replace(s, position=(float(s.position[0] + x), float(s.position[1] + z)))
            for n, s in zip(self.members, self.subjects, strict=True)
        }


def _stacks(rng: np.random.Generator, subjects: Sequence[Subject], riders: dict[int, int]) -> list[_Stack]:
    """All stacks, large ones mostly first."""
    above = {support: rider for rider, support in riders.items()}
    stacks = []
    for n, subject in enumerate(subjects):
        if n in riders:
            continue
        base, members = replace(subject, position=(0.0, 0.0), height=0.0), [n]
        both = [base]
        if n in above:
            members.append(above[n])
            both.append(put_on(subjects[above[n]], base, rng))
        stacks.append(_Stack.of(members, both))
    large = [float(np.prod(s.boxes[:, 1].max(0)[:2] - s.boxes[:, 0].min(0)[:2])) for s in stacks]
    order = np.argsort(-np.array(large) * rng.uniform(0.6, 1.4, len(large)))
    return [stacks[i] for i in order]


def _composed(
    rng: np.random.Generator, camera: Camera, subjects: Sequence[Subject], riders: dict[int, int]
) -> list[Subject] | None:
    """The subjects, each at a free position; None if one finds none.

    Who finds none may choose before the last few, who then choose again; so often as there are subjects.
    """
    stacks = _stacks(rng, subjects, riders)
    standing = _Standing(camera, slots(rng, len(stacks), share(len(stacks))))
    before: list[dict] = []  # who stood when each of them chose
    spots: list[tuple[float, float]] = []
    steps_back = len(stacks)
    while len(spots) < len(stacks):
        n = len(spots)
        feet = _foot_points(rng, camera, stacks[n], len(stacks))
        before.append(dict(vars(standing)))
        spot = None if feet is None else standing.add(rng, stacks[n], feet)
        if spot is not None:
            spots.append(spot)
            continue
        if feet is None or not steps_back:
            return None
        steps_back -= 1
        first = max(0, n - _BACK)
        stacks.insert(first, stacks.pop(n))
        vars(standing).update(before[first])
        del before[first:], spots[first:]
    out = {n: one for stack, spot in zip(stacks, spots, strict=True) for n, one in stack.at(*spot).items()}
    return [out[n] for n in range(len(subjects))]


def _foot_points(rng: np.random.Generator, camera: Camera, stack: _Stack, count: int) -> np.ndarray | None:
    """[k, 2]: foot points (u, v) at which the stack seems to be large enough and in the frame; None if there are none.

    A metre across the view at foot v is `grows` * (v - horizon) of the image's side.
    """
    horizon = horizon_of(camera)
    grows = float(camera_basis(camera)[1, 1]) / camera.eye[1]
    (left, _, front), (right, top, _) = stack.boxes[:, 0].min(0).tolist(), stack.boxes[:, 1].max(0).tolist()
    least = max(1.15 * SMALLEST, _LEAST * share(count) ** 2)
    high, wide, lowest = 1.06 * grows * top, grows * (right - left), horizon + least**0.5 / (grows * stack.seen)
    # What is before the foot is nearer, and lower in the image.
    reach = 1 - _FRAME - horizon
    nearer = 1 - 1.6 * np.tan(camera.fov / 2) * grows * front * reach
    highest = horizon + reach / nearer
    above = _FRAME - high * horizon  # v - high * (v - horizon) >= _FRAME
    if high < 0.98:
        lowest = max(lowest, above / (1 - high))
    elif above < 0:
        highest = min(highest, above / (1 - high))
    if lowest >= highest or (high >= 0.98 and above >= 0):
        return None
    if count == 1:  # in the middle of the image
        v = (rng.uniform(0.46, 0.55, _CANDIDATES) - high * horizon / 2) / max(1 - high / 2, 0.1)
        v, aside = np.clip(v, lowest, highest), np.full(_CANDIDATES, 0.13)
    else:
        v = lowest + (highest - lowest) * rng.random(_CANDIDATES) ** 0.75
        aside = np.maximum(0.5 - _FRAME - wide * nearer * (v - horizon) / 2, 0.0)
    return np.stack([0.5 + aside * rng.uniform(-1, 1, _CANDIDATES), v], 1)


class _Standing:
    """Those who stand already: their hulls, and for each subject its box in the image, distance, and share hidden."""

    def __init__(self, camera: Camera, slots: np.ndarray):
        self._camera, self._slots = camera, slots
        self._view, self._tangent = camera_basis(camera).T, 2 * np.tan(camera.fov / 2)
        self._opposite = np.zeros((0, len(DIRECTIONS)))  # hulls, along the opposite of each direction
        self._boxes, self._away, self._hidden, self._seen = np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros(0)

    def add(self, rng: np.random.Generator, stack: _Stack, feet: np.ndarray) -> tuple[float, float] | None:
        """Stands the stack where it is free and visible, and returns the position (x, z); None if that is nowhere."""
        ground = ground_points(self._camera, feet[:, 0], feet[:, 1])
        where = np.stack([ground[:, 0], np.zeros(len(feet)), ground[:, 1]], 1)
        boxes = self._projected(stack.boxes, where)  # [k, m, 4]
        areas = _areas(boxes)
        # Shares of the new one that those before it hide, and of those behind it that it hides.
        overlaps = _overlaps(boxes[:, :, None], self._boxes)  # [k, m, n]
        nearer = where[:, None, None, 2] < self._away
        caused = overlaps * nearer
        suffered = (overlaps - caused).sum(2) / areas
        hidden = self._hidden + caused.sum(1) / _areas(self._boxes)
        free = (np.abs(boxes - 0.5) <= 0.5 - _FRAME).all((1, 2))
        free &= ((suffered <= _HIDDEN) & (areas * stack.filled * (1 - suffered) >= SMALLEST)).all(1)
        free &= ((hidden <= _HIDDEN) & (self._seen * (1 - hidden) >= SMALLEST)).all(1)
        rank = rng.uniform(0.0, 0.15, len(feet)) + np.hypot(*(feet[:, None] - self._slots).T).min(0)
        if rng.random() >= _OVERLAPPING:
            rank += suffered.sum(1) + hidden.sum(1)
        for one in np.flatnonzero(free)[rank[free].argsort()]:
            hull = stack.hull + DIRECTIONS @ where[one]
            if -(hull + self._opposite).min(1).max(initial=-np.inf) > _APART:
                break
        else:
            return None
        self._slots = np.delete(self._slots, np.hypot(*(feet[one] - self._slots).T).argmin(), 0)
        self._opposite = np.concatenate([self._opposite, np.roll(hull, len(hull) // 2)[None]])
        self._boxes = np.concatenate([self._boxes, boxes[one]])
        self._away = np.concatenate([self._away, np.full(len(stack.members), where[one, 2])])
        self._hidden = np.concatenate([hidden[one], suffered[one]])
        self._seen = np.concatenate([self._seen, areas[one] * stack.filled])
        return float(where[one, 0]), float(where[one, 2])

    def _projected(self, boxes: Float[np.ndarray, "m 2 3"], where: Float[np.ndarray, "k 3"]) -> np.ndarray:
        """[k, m, 4]: `projected_boxes` of boxes moved to each of these places, with less work."""
        middle, half = boxes.mean(1), (boxes[:, 1] - boxes[:, 0]) / 2 * SHRUNK
        corners = (middle[:, None] + half[:, None] * CORNERS) @ self._view
        x, y, depth = np.moveaxis(corners + ((where - self._camera.eye) @ self._view)[:, None, None], -1, 0)
        depth = self._tangent * np.maximum(depth, 1e-3)
        u, v = 0.5 + x / depth, 0.5 - y / depth
        return np.stack([u.min(-1), v.min(-1), u.max(-1), v.max(-1)], -1)


def _areas(boxes: Float[np.ndarray, "... 4"]) -> Float[np.ndarray, "..."]:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _overlaps(one: Float[np.ndarray, "... 4"], other: Float[np.ndarray, "... 4"]) -> Float[np.ndarray, "..."]:
    """The areas that boxes have in common; leading axes broadcast."""
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    sides = np.maximum(sides, 0.0)
    return sides[..., 0] * sides[..., 1]


# ---- always possible ----


def in_rows(rng: np.random.Generator, subjects: Sequence[Subject]) -> tuple[Camera, list[Subject]]:
    """All on the ground in rows, as far apart as the widest one needs, seen from above: none can collide."""
    pitch = 2.1 * max(extents_of(s).reach * s.scale for s in subjects)
    columns = int(np.ceil(np.sqrt(len(subjects))))
    rows = int(np.ceil(len(subjects) / columns))
    placed = list(subjects)
    for cell, n in enumerate(rng.permutation(len(subjects))):
        row, column = divmod(cell, columns)
        x, z = (column - (columns - 1) / 2) * pitch, (row - (rows - 1) / 2) * pitch
        placed[n] = replace(subjects[n], position=(float(x), float(z)), height=0.0)
    away, rise, fov = 4.0 * pitch * columns, float(rng.uniform(0.75, 0.95)), 0.5
    for _ in range(4):  # exact for a far camera; a near one sees the front larger
        camera = Camera(
            "perspective", (0.0, float(away * np.sin(rise)), float(-away * np.cos(rise))), (0.0, 0.25, 0.0), fov
        )
        away *= float(np.abs(boxes_of(camera, placed) - 0.5).max()) / (0.5 - _FRAME)
    return camera, placed
