"""Where subjects stand: projection, cameras, supports, and what hides what.

Image coordinates are (u, v) in 0..1 from the top left corner of a square image. A subject's size is its kind's (see
`assets/catalog.py`), so how large it appears follows from its distance alone: near things are larger.
Read next: `collision.py` (the extents of a subject), `arrangement.py` (positions that keep subjects apart).
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from macro.scenes.assets.catalog import SUPPORTS, toy_size, unit_size
from macro.scenes.graph import Camera, Subject
from macro.scenes.layout.collision import extents, extents_of, foot_of
from macro.scenes.render.scene_compiler import camera_basis

CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
SHRUNK = np.array([0.94, 1.0, 0.75])  # a solid seldom fills the corners of its box: they move inwards
_USUAL = 0.78  # v of the foot at which a subject has its usual size in the image
_LIFT = 1.15  # how far the horizon rises from one subject to twelve, in heights of the image
_OVERHANG = 1.2  # a rider's longer side on the ground beside the mean side of the top
_TALLEST_RIDER = 1.05  # metres


def project(camera: Camera, points: np.ndarray) -> np.ndarray:
    """World points [..., 3] to (u, v, distance along the view) [..., 3], for a square perspective image."""
    seen = (points - np.array(camera.eye)) @ camera_basis(camera).T
    tangent = np.tan(camera.fov / 2)
    depth = np.maximum(seen[..., 2], 1e-3)
    return np.stack(
        [0.5 + 0.5 * seen[..., 0] / depth / tangent, 0.5 - 0.5 * seen[..., 1] / depth / tangent, depth], -1
    )


def ground_points(camera: Camera, u: np.ndarray, v: np.ndarray) -> Float[np.ndarray, "k 2"]:
    """(x, z) of the ground under image points (u, v), which must be below the horizon."""
    tangent = np.tan(camera.fov / 2)
    rays = np.stack([(2 * u - 1) * tangent, (1 - 2 * v) * tangent, np.ones_like(u)], -1) @ camera_basis(camera)
    eye = np.array(camera.eye)
    return eye[[0, 2]] - rays[:, [0, 2]] * (eye[1] / rays[:, 1:2])


def world_box(subject: Subject) -> Float[np.ndarray, "2 3"]:
    """Corners of a box around the subject, along the world's axes, metres."""
    return foot_of(subject) + subject.scale * extents_of(subject).box


def projected_boxes(camera: Camera, boxes: Float[np.ndarray, "... 2 3"]) -> Float[np.ndarray, "... 4"]:
    """(u0, v0, u1, v1) of world boxes, not clipped; slightly too large for round kinds."""
    low, high = boxes[..., 0, :], boxes[..., 1, :]
    middle, half = (low + high) / 2, (high - low) / 2 * SHRUNK
    seen = project(camera, middle[..., None, :] + half[..., None, :] * CORNERS)[..., :2]
    return np.concatenate([seen.min(-2), seen.max(-2)], -1)


def projected_box(camera: Camera, subject: Subject) -> Float[np.ndarray, "4"]:
    """(u0, v0, u1, v1) of the subject, see `projected_boxes`."""
    return projected_boxes(camera, world_box(subject))


def boxes_of(camera: Camera, subjects: Sequence[Subject]) -> Float[np.ndarray, "s 4"]:
    """`projected_box` of each subject."""
    return projected_boxes(camera, np.array([world_box(s) for s in subjects]).reshape(-1, 2, 3))


def view_of(rng: np.random.Generator, count: int, size: float = 0.8) -> Camera:
    """A camera for `count` subjects of about `size` metres: nearly level for one, from well above for twelve.

    The random variable is the horizon's position in the image: below the upper third for one subject, outside the
    image for six. The eye is so high that a subject with its foot at v = `_USUAL` is `share(count)` of the image.
    """
    crowd = ((count - 1) / 11) ** 1.1
    horizon = rng.uniform(0.26, 0.40) - _LIFT * crowd
    fov = rng.uniform(0.42, 0.55)
    tangent = np.tan(fov / 2)
    pitch = np.arctan((0.5 - horizon) * 2 * tangent)
    height = size * np.cos(pitch) * (_USUAL - horizon) / share(float(count))
    away = height / np.tan(pitch + np.arctan((2 * _USUAL - 1) * tangent))
    return Camera(
        "perspective", (0.0, float(height), float(-away)), (0.0, float(height - away * np.tan(pitch)), 0.0), float(fov)
    )


def horizon_of(camera: Camera) -> float:
    """v of the horizon in the image (below 0: above its upper edge)."""
    forward = camera_basis(camera)[2]
    return float(0.5 + 0.5 * forward[1] / np.hypot(forward[0], forward[2]) / np.tan(camera.fov / 2))


def share(count: float | int) -> float:
    """Side of a subject's square in the image, for `count` of them: .5 for one, .22 for twelve."""
    return min(0.5, 0.62 / count**0.41)


def _row_counts(rng: np.random.Generator, slots: int) -> list[int]:
    """The number of slots of each row, from the back to the front."""
    rows = 1 if slots == 1 else 2 if slots <= 5 else 3
    if slots in (2, 3) and rng.random() < 0.55:
        rows = 1
    if slots in (6, 7) and rng.random() < 0.5:
        rows = 2
    counts = [slots // rows] * rows
    for row in rng.permutation(rows)[: slots % rows]:
        counts[row] += 1
    return counts


def slots(rng: np.random.Generator, count: int, size: float) -> Float[np.ndarray, "n 2"]:
    """`count` foot points (u, v) spread over the image in rows, back rows first; `size` is a subject's usual side."""
    counts = _row_counts(rng, count)
    rows = len(counts)
    back, front = (0.72, 0.84) if rows == 1 else (min(0.55, size + 0.13 + 0.1 / rows), 0.93)
    shift, out = rng.uniform(-0.04, 0.02), []
    for row, columns in enumerate(counts):
        v = rng.uniform(back, front) if rows == 1 else back + (front - back) * row / (rows - 1) + shift
        spread = min(0.94, max(0.94 if columns > 2 else 0.0, columns * size * rng.uniform(1.15, 1.5)))
        start = 0.5 - spread / 2 + rng.uniform(-1, 1) * max(0.0, 0.47 - spread / 2) * 0.8
        out += [(start + spread * (column + 0.5) / columns, v) for column in range(columns)]
    return np.array(out) + rng.uniform(-1, 1, (count, 2)) * np.array([0.1, 0.3]) * size


def natural_scale(kind: str, exponent: float = 0.25) -> float:
    """Metres per unit of the kind that give it its `toy_size`."""
    return toy_size(kind, exponent) / unit_size(kind)


def top_of(support: Subject) -> float:
    """The height of its flat top above the ground, metres."""
    return support.height + SUPPORTS[support.kind] * support.scale


def can_carry(support: str, rider: str) -> bool:
    """Whether a subject of this kind finds room on the flat top of one of that kind, in their natural sizes."""
    if support not in SUPPORTS or rider in SUPPORTS:
        return False
    wide, deep = _floor(support)
    return max(_floor(rider)) <= _OVERHANG * (wide + deep) / 2 and toy_size(rider) <= _TALLEST_RIDER


def _floor(kind: str) -> tuple[float, float]:
    """Extents of a kind on the ground, metres."""
    low, high = extents(kind, 0.5, 0.0).box * natural_scale(kind)
    return float(high[0] - low[0]), float(high[2] - low[2])


def put_on(subject: Subject, support: Subject, rng: np.random.Generator) -> Subject:
    """`subject` on the flat top of `support`, near its middle; its lowest point touches the top."""
    aside = 0.08 * support.scale * rng.uniform(-1, 1)
    x, z = support.position
    raised = top_of(support) - extents_of(subject).box[0, 1] * subject.scale
    return replace(subject, position=(x + aside, z), height=float(raised))


def stands_on(rider: Subject, support: Subject) -> bool:
    """Whether `rider` was put on `support`."""
    if support.kind not in SUPPORTS or rider.height <= 0:
        return False
    near = np.hypot(*np.subtract(support.position, rider.position)) < 0.3 * support.scale
    # A part of the rider may be lower than its foot: then the foot is a little above the top.
    return bool(near) and abs(rider.height - top_of(support)) < 0.15 * rider.scale


def supports_of(subjects: Sequence[Subject]) -> dict[int, int]:
    """{i: j} for every subject i that stands on a subject j; indices from 0."""
    carriers = [j for j, support in enumerate(subjects) if support.kind in SUPPORTS]
    risen = [i for i, rider in enumerate(subjects) if rider.height > 0]
    return {i: j for i in risen for j in carriers if stands_on(subjects[i], subjects[j])}


_STEPS = (np.arange(12) + 0.5) / 12


def hidden_shares(camera: Camera, subjects: Sequence[Subject]) -> Float[np.ndarray, "s"]:
    """Share of each subject's box that nearer boxes cover or the frame cuts (an upper estimate)."""
    boxes = boxes_of(camera, subjects)
    nearness = np.array([-s.position[1] + 1e-3 * s.height for s in subjects])
    # 12 x 12 points of each box, and for each axis which of them are between the sides of each other box.
    points = boxes[:, :2, None] + _STEPS * (boxes[:, 2:, None] - boxes[:, :2, None])  # [s, 2, 12]
    slack = 0.08 * (boxes[:, 2] - boxes[:, 0])[:, None]
    low, high = boxes[:, :2] + slack, boxes[:, 2:] - slack * [1.0, 0.0]
    between = (points[:, None] > low[..., None]) & (points[:, None] < high[..., None])  # [s, s, 2, 12]
    nearer = nearness[None, :, None] > nearness[:, None, None]
    covered = ((between[:, :, 0] & nearer)[..., None] & between[:, :, 1, None]).any(1)
    outside = (points < 0) | (points > 1)
    return (covered | outside[:, 0, :, None] | outside[:, 1, None]).mean((1, 2))
