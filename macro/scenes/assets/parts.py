"""The parts of kinds: one `Part` per primitive, and short constructors for the six shapes.

A kind is built in its own frame: y up from the ground at 0, its front towards -z, about one unit in its
largest extent. Read next: `animals.py` and `objects.py` (the kinds), `scene_compiler.py` (parts to arrays).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from macro.scenes.graph import RGB

Number = float | int
Vector = tuple[Number, Number, Number]
INK: RGB = (0.10, 0.10, 0.12)
WOOD: RGB = (0.55, 0.38, 0.22)
LEAF: RGB = (0.25, 0.52, 0.22)
BALL = (1.0, 0.0, -1.0, -1.0, 1.0)
UPRIGHT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Part:
    """One primitive of a kind.

    Attributes:
      shape: "quadric" (`profile` gives its radius), "box" or "capsule".
      centre: middle, in units of the kind.
      size: half extents along the part's own axes; a capsule's second is half its whole length.
      profile: a quadric's (q0, q1, q2, low, high), see `primitives.py`.
      turn: [3, 3] rotation from the part's axes to the kind's, as nested tuples.
      facing: [3, 3] rotation of the group that the part was turned with: marks are upright in its frame.
      colour: 0, 1, 2 for the palette's main (which carries the texture), second and accent colour, or a
        fixed RGB.
      mark: one of `textures.MARKS`, or None.
      axis: the side the mark faces: "front" or "side".
      mark_size: half the mark's extent (for rows of windows: the distance from one to the next).
      mark_up: how far above the part's centre the mark sits, units of the kind.
      decal: whether the subject's decal, if it has one, goes here.
    """

    shape: str
    centre: Vector
    size: Vector
    profile: tuple[float, float, float, float, float] = BALL
    turn: tuple[Vector, Vector, Vector] = UPRIGHT
    facing: tuple[Vector, Vector, Vector] = UPRIGHT
    colour: int | RGB = 0
    mark: str | None = None
    axis: str = "front"
    mark_size: float = 0.1
    mark_up: float = 0.0
    decal: bool = False


Builders = dict[str, Callable[[float], list[Part]]]  # a kind's name -> its parts in a pose


def rotation(x: Number = 0, y: Number = 0, z: Number = 0) -> np.ndarray:
    """[3, 3]: turn by `z` about the z axis, then by `x` about x, then by `y` about y (radians)."""
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(a), np.sin(a)) for a in (x, y, z))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def _frozen(matrix: np.ndarray) -> tuple:
    return tuple(tuple(float(v) for v in row) for row in matrix)


def _part(shape: str, centre: Vector, size: Vector, colour, turn: Vector, **rest) -> Part:
    return Part(shape, centre, size, colour=colour, turn=_frozen(rotation(*turn)), **rest)


def ball(centre: Vector, size: Vector | Number, colour=0, turn: Vector = (0, 0, 0), **rest) -> Part:
    """Sphere (one radius) or ellipsoid (three)."""
    size = (size, size, size) if isinstance(size, (int, float)) else size
    return _part("quadric", centre, size, colour, turn, **rest)


def dome(centre: Vector, size: Vector, colour=0, turn: Vector = (0, 0, 0), **rest) -> Part:
    """The upper half of an ellipsoid; a negative second size makes it a bowl."""
    return _part("quadric", centre, size, colour, turn, profile=(1.0, 0.0, -1.0, 0.0, 1.0), **rest)


def box(centre: Vector, size: Vector, colour=0, turn: Vector = (0, 0, 0), **rest) -> Part:
    """Box with three half edges."""
    return _part("box", centre, size, colour, turn, **rest)


def rod(centre: Vector, size: Vector, colour=0, turn: Vector = (0, 0, 0), **rest) -> Part:
    """Cylinder along its y axis: radius, half length, radius."""
    return _part("quadric", centre, size, colour, turn, profile=(1.0, 0.0, 0.0, -1.0, 1.0), **rest)


def cone(centre: Vector, size: Vector, colour=0, turn: Vector = (0, 0, 0), top: float = 0.0, **rest) -> Part:
    """Cone along y whose radius falls from 1 to `top` (< 1); a negative second size points it down."""
    middle, slope = (1 + top) / 2, (1 - top) / 2
    profile = (middle * middle, -2 * middle * slope, slope * slope, -1.0, 1.0)
    return _part("quadric", centre, size, colour, turn, profile=profile, **rest)


def pill(centre: Vector, size: Vector, colour=0, turn: Vector = (0, 0, 0), **rest) -> Part:
    """Capsule along its y axis: radius, half of the whole length, radius."""
    return _part("capsule", centre, size, colour, turn, **rest)


def turned(pivot: Vector, turn: Vector, *parts: Part) -> list[Part]:
    """`parts` rotated together about `pivot`: a head, an arm, a wheel of sails."""
    matrix, pivot = rotation(*turn), np.asarray(pivot)
    return [
        replace(
            part,
            centre=tuple(float(v) for v in matrix @ (np.asarray(part.centre) - pivot) + pivot),
            turn=_frozen(matrix @ np.asarray(part.turn)),
            facing=_frozen(matrix @ np.asarray(part.facing)),
        )
        for part in parts
    ]


def box_of(parts: tuple[Part, ...]) -> np.ndarray:
    """[2, 3]: the corners of a box around all parts, in the kind's frame."""
    corners = []
    for part in parts:
        matrix, size, centre = np.asarray(part.turn), np.abs(part.size), np.asarray(part.centre)
        low, high = part.profile[3:]
        if part.shape == "box":
            reach = np.abs(matrix) @ size
        elif part.shape == "capsule":
            reach = np.abs(matrix[:, 1]) * (size[1] - size[0]) + size[[0, 0, 2]]
        elif part.profile == BALL:
            reach = np.linalg.norm(matrix * size, axis=1)
        else:
            centre = centre + matrix[:, 1] * part.size[1] * (low + high) / 2
            along = np.abs(matrix[:, 1]) * size[1] * (high - low) / 2
            reach = along + np.linalg.norm(matrix[:, [0, 2]] * size[[0, 2]], axis=1)
        corners += [centre - reach, centre + reach]
    return np.stack([np.min(corners, axis=0), np.max(corners, axis=0)])
