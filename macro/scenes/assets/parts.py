"""The parts of kinds: one `Part` per primitive, and short constructors for the six shapes.

A kind is built in its own frame: y up from the ground at 0, its front towards -z, about one unit in its
largest extent. Read next: `animals.py` and `objects.py` (the kinds), `scene_compiler.py` (parts to arrays).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import cos, sin

import numpy as np
from jaxtyping import Float

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
    return np.array(_rotated(x, y, z))


def _rotated(x: Number, y: Number, z: Number) -> tuple[Vector, Vector, Vector]:
    """The same in plain numbers, many times faster than products of small arrays."""
    cx, sx, cy, sy, cz, sz = cos(x), sin(x), cos(y), sin(y), cos(z), sin(z)
    return (
        (cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx),
        (cx * sz, cx * cz, -sx),
        (cy * sx * sz - sy * cz, sy * sz + cy * sx * cz, cy * cx),
    )


def _part(shape: str, centre: Vector, size: Vector, colour, turn: Vector, **rest) -> Part:
    return Part(shape, centre, size, colour=colour, turn=UPRIGHT if turn == (0, 0, 0) else _rotated(*turn), **rest)


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
    matrix, (x, y, z) = _rotated(*turn), pivot
    out = []
    for part in parts:
        a, b, c = part.centre[0] - x, part.centre[1] - y, part.centre[2] - z
        centre = tuple(i * a + j * b + k * c + at for (i, j, k), at in zip(matrix, pivot, strict=True))
        out.append(
            replace(part, centre=centre, turn=_product(matrix, part.turn), facing=_product(matrix, part.facing))
        )
    return out


def _product(one: tuple[Vector, Vector, Vector], other: tuple[Vector, Vector, Vector]) -> tuple:
    (a, b, c), (d, e, f), (g, h, i) = other
    return tuple((x * a + y * d + z * g, x * b + y * e + z * h, x * c + y * f + z * i) for x, y, z in one)


def supports(parts: Sequence[Part], directions: Float[np.ndarray, "p d 3"]) -> Float[np.ndarray, "p d"]:
    """The support function of each part along its own directions, in the kind's frame: its maximum of d . x."""
    size, centre = np.array([part.size for part in parts], np.float64), np.array([part.centre for part in parts])
    local = directions @ np.array([part.turn for part in parts])  # [p, d, 3], along the part's own axes
    sideways, upwards, depth = np.moveaxis(local * size[:, None], -1, 0)
    across = np.hypot(sideways, depth)
    out = _quadric_support(np.array([part.profile for part in parts])[:, :, None], upwards, across)
    boxes, pills = ([i for i, part in enumerate(parts) if part.shape == shape] for shape in ("box", "capsule"))
    out[boxes] = np.abs(sideways[boxes]) + np.abs(upwards[boxes]) + np.abs(depth[boxes])
    if pills:  # the hull of two balls: radius, half of the whole length, depth
        radius, half = size[pills, 0, None], size[pills, 1, None]
        height = local[pills, :, 1]
        out[pills] = np.hypot(across[pills], radius * height) + (half - radius) * np.abs(height)
    return out + (directions @ centre[:, :, None])[..., 0]


def _quadric_support(
    profile: Float[np.ndarray, "p 5 1"], upwards: Float[np.ndarray, "p d"], across: Float[np.ndarray, "p d"]
) -> Float[np.ndarray, "p d"]:
    """Maximum of upwards * y + across * radius(y) for low <= y <= high; see `render/primitives.py`.

    It is at a cut; for a round profile, where the surface is at right angles to the direction.
    """
    q0, q1, q2, low, high = np.moveaxis(profile, 1, 0)
    level = np.clip(upwards / np.maximum(np.hypot(upwards, across), 1e-12), low, high)
    out = None
    for y in (low, high, np.where(q2 == -1.0, level, low)):
        value = upwards * y + across * np.sqrt(np.maximum(q0 + y * (q1 + q2 * y), 0.0))
        out = value if out is None else np.maximum(out, value)
    return out


def box_of(parts: Sequence[Part]) -> Float[np.ndarray, "2 3"]:
    """The corners of a box around all parts, in the kind's frame."""
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    reach = supports(parts, np.broadcast_to(axes, (len(parts), 6, 3))).max(0)
    return np.stack([-reach[3:], reach[:3]])
