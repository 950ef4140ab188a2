"""Extents of subjects along fixed directions, and collision detection: no subject may reach into another.

All parts are convex, so a part is bounded by its support function h(d) = max over its points x of d . x
(`assets/parts.py`). Two parts are apart if for some direction d: h_a(d) + h_b(-d) < 0 (a separating plane).
Only the directions in `DIRECTIONS` are tried. So "apart" is always true, and "collides" can be said of two parts
that have up to a few per cent of their size between them. Read next: `placement.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from macro.scenes.assets.catalog import KINDS
from macro.scenes.assets.parts import supports
from macro.scenes.graph import Subject

_AROUND = np.deg2rad(np.arange(0, 180, 15))
_SLANTED = np.deg2rad(np.arange(0, 360, 30))
_HALF = np.concatenate([
    [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]],
    np.stack([np.cos(_AROUND), 0 * _AROUND, np.sin(_AROUND)], 1)[[i for i in range(12) if i not in (0, 6)]],
    np.stack([np.cos(_SLANTED), 1 + 0 * _SLANTED, np.sin(_SLANTED)], 1) / np.sqrt(2),
])  # fmt: skip
_HALVES = len(_HALF)
# [50, 3] unit vectors: the axes, all round in steps of 15 degrees, slanted ones; then the opposite of each.
DIRECTIONS: Float[np.ndarray, "d 3"] = np.concatenate([_HALF, -_HALF])
_HORIZONTAL = np.flatnonzero(DIRECTIONS[:, 1] == 0)
TOUCH = 1e-6  # metres: what stands on something touches it


@dataclass(frozen=True)
class Extents:
    """The extents of a kind in one pose and yaw, at scale 1 with its foot at the origin.

    Attributes:
      parts: [parts, d] the support function of each part in `DIRECTIONS`.
      hull: [d] that of all of them together.
      box: [2, 3] corners of the box around it, along the axes.
      reach: radius of an upright cylinder about the foot that holds it at any yaw.
      filled: the approximate share of its box's front that it fills: .3 for a guitar, near 1 for a crate.
    """

    parts: Float[np.ndarray, "p d"]
    hull: Float[np.ndarray, "d"]
    box: Float[np.ndarray, "2 3"]
    reach: float
    filled: float


_known: dict[tuple[str, float, float], Extents] = {}
_KEPT = 8192


def extents(kind: str, pose: float, yaw: float) -> Extents:
    """The extents of a kind in this pose, turned by `yaw`."""
    return extents_of_all([(kind, pose, yaw)])[0]


def extents_of_all(keys: Sequence[tuple[str, float, float]]) -> list[Extents]:
    """The extents of several (kind, pose, yaw) in one go; the last few thousand are remembered."""
    new = [key for key in dict.fromkeys(keys) if key not in _known]
    if new:
        if len(_known) > _KEPT:
            kept = {key: _known[key] for key in keys if key in _known}
            _known.clear()
            _known.update(kept)
        _known.update(zip(new, _measured(new), strict=True))
    return [_known[key] for key in keys]


def _measured(keys: Sequence[tuple[str, float, float]]) -> list[Extents]:
    built = [KINDS[kind](pose) for kind, pose, _ in keys]
    starts = np.cumsum([0, *map(len, built[:-1])])
    owner = np.repeat(np.arange(len(keys)), [len(parts) for parts in built])
    cos, sin = np.cos([key[2] for key in keys]), np.sin([key[2] for key in keys])
    x, y, z = DIRECTIONS.T
    # A turned subject along d is the unturned one along d turned back.
    cos, sin = cos[:, None], sin[:, None]
    along = np.stack([x * cos - z * sin, y + 0 * cos, x * sin + z * cos], -1)
    parts = [part for each in built for part in each]
    support = supports(parts, along[owner])
    hulls = np.maximum.reduceat(support, starts)
    boxes = np.stack([-hulls[:, _HALVES : _HALVES + 3], hulls[:, :3]], 1)
    reaches = hulls[:, _HORIZONTAL].max(1) / np.cos(np.deg2rad(7.5))
    filled = _filled(support, boxes[owner], [part.profile[2] == -1.0 for part in parts], starts)
    bounds = [*starts[1:], len(parts)]
    return [
        Extents(support[start:stop], hull, box, float(reach), float(share))
        for start, stop, hull, box, reach, share in zip(starts, bounds, hulls, boxes, reaches, filled, strict=True)
    ]


_STEPS = (np.arange(20) + 0.5) / 20


def _filled(support: np.ndarray, boxes: np.ndarray, rounds: Sequence[bool], starts: np.ndarray) -> np.ndarray:
    """The share of 20 x 20 points on the front of each subject's box that are in the box or ellipse of a part."""
    low, high = -support[:, _HALVES : _HALVES + 2], support[:, :2]
    points = boxes[:, 0, None, :2] + _STEPS[:, None] * (boxes[:, 1, :2] - boxes[:, 0, :2])[:, None]  # [p, 20, 2]
    off = (points - (low + high)[:, None] / 2) / np.maximum((high - low)[:, None] / 2, 1e-6)
    off *= off
    x, y = off[:, None, :, 0], off[:, :, None, 1]
    seen = np.where(np.array(rounds)[:, None, None], x + y, np.maximum(x, y)) < 1
    return np.logical_or.reduceat(seen, starts).mean((1, 2))


def extents_of(subject: Subject) -> Extents:
    """The extents of a subject's kind in its pose and yaw, at scale 1."""
    return extents(subject.kind, subject.pose, subject.yaw)


def foot_of(subject: Subject) -> Float[np.ndarray, "3"]:
    """The point its extents are measured from, metres."""
    return np.array([subject.position[0], subject.height, subject.position[1]])


def hull_of(subject: Subject) -> Float[np.ndarray, "d"]:
    """The support function of a subject where it stands, in `DIRECTIONS`, metres."""
    return subject.scale * extents_of(subject).hull + DIRECTIONS @ foot_of(subject)


def gaps(one: Float[np.ndarray, "... d"], other: Float[np.ndarray, "... d"]) -> np.ndarray | np.floating:
    """Distance along the direction that separates two supports most; negative if none does. Leading axes broadcast."""
    return -(one + np.roll(other, _HALVES, axis=-1)).min(-1)


def collide(one: Subject, other: Subject) -> bool:
    """Whether a part of one subject reaches into a part of the other."""
    first, second = extents_of(one), extents_of(other)
    between = DIRECTIONS @ (foot_of(one) - foot_of(other))
    if gaps(one.scale * first.hull + between, other.scale * second.hull) >= -TOUCH:
        return False
    parts = gaps((one.scale * first.parts + between)[:, None], other.scale * second.parts[None])
    return bool((parts < -TOUCH).any())


def collisions(subjects: Sequence[Subject]) -> list[tuple[int, int]]:
    """All pairs i < j of indices of subjects that collide."""
    return [(i, j) for j in range(len(subjects)) for i in range(j) if collide(subjects[i], subjects[j])]
