"""Positions of subjects: composed in the image first, then projected to the ground.

A composition is a few rows in depth, each cut into slots. A slot asks for a foot point and a size in the
image; the camera's ray through the foot point gives the position on the ground, and the size gives the
scale. So subjects are as large as their number allows in any perspective, and "left of" on the ground is
"left of" in the image.

Image coordinates are (u, v) in 0..1 from the top left corner of a square image.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from macro.scenes.assets.catalog import KINDS, SUPPORTS
from macro.scenes.assets.parts import box_of, turned
from macro.scenes.graph import Camera, Subject
from macro.scenes.render.scene_compiler import camera_basis

_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))


def project(camera: Camera, points: np.ndarray) -> np.ndarray:
    """World points [..., 3] to (u, v, distance along the view) [..., 3], for a square perspective image."""
    seen = (points - np.array(camera.eye)) @ camera_basis(camera).T
    tangent = np.tan(camera.fov / 2)
    depth = np.maximum(seen[..., 2], 1e-3)
    return np.stack(
        [0.5 + 0.5 * seen[..., 0] / depth / tangent, 0.5 - 0.5 * seen[..., 1] / depth / tangent, depth], -1
    )


def ground_point(camera: Camera, u: float, v: float) -> tuple[float, float]:
    """(x, z) of the ground under image point (u, v), which must be below the horizon."""
    tangent = np.tan(camera.fov / 2)
    ray = np.array([(2 * u - 1) * tangent, (1 - 2 * v) * tangent, 1.0]) @ camera_basis(camera)
    at = np.array(camera.eye) - ray * camera.eye[1] / ray[1]
    return float(at[0]), float(at[2])


@functools.lru_cache(maxsize=4096)
def _extent(kind: str, pose: float, yaw: float) -> np.ndarray:
    return box_of(tuple(turned((0.0, 0.0, 0.0), (0.0, yaw, 0.0), *KINDS[kind](pose))))


@functools.lru_cache(maxsize=4096)
def filled(kind: str, pose: float, yaw: float) -> float:
    """The approximate share of its box's front that a subject fills: .3 for a guitar, near 1 for a crate."""
    parts = turned((0.0, 0.0, 0.0), (0.0, yaw, 0.0), *KINDS[kind](pose))
    low, high = _extent(kind, pose, yaw)[:, :2]
    steps = (np.arange(20) + 0.5) / 20
    points = low + np.stack(np.meshgrid(steps, steps), -1) * (high - low)
    seen = np.zeros(points.shape[:2], bool)
    for part in parts:
        corners = box_of((part,))[:, :2]
        off = np.abs(points - corners.mean(0)) / (0.5 * (corners[1] - corners[0]))
        is_round = part.shape == "quadric" and part.profile[2] == -1.0
        seen |= ((off**2).sum(-1) if is_round else off.max(-1)) < 1
    return float(seen.mean())


def world_box(subject: Subject) -> np.ndarray:
    """[2, 3]: corners of a box around the subject, along the world's axes."""
    foot = np.array([subject.position[0], subject.height, subject.position[1]])
    return foot + subject.scale * _extent(subject.kind, subject.pose, subject.yaw)


def projected_box(camera: Camera, subject: Subject) -> np.ndarray:
    """(u0, v0, u1, v1) of the subject, not clipped; slightly too large for round kinds."""
    low, high = world_box(subject)
    # A solid seldom fills the corners of its box: move them inwards across the view.
    middle, half = (low + high) / 2, (high - low) / 2 * np.array([0.94, 1.0, 0.75])
    corners = middle + half * _CORNERS
    seen = project(camera, corners)[:, :2]
    return np.concatenate([seen.min(0), seen.max(0)])


def view_of(rng: np.random.Generator, count: int) -> Camera:
    """A camera for `count` subjects of about a metre: nearly level for one, well above the ground for twelve.

    The random variable is the horizon's position in the image: below the upper third for one subject,
    outside the image for ten.
    """
    crowd = ((count - 1) / 11) ** 0.75
    horizon = rng.uniform(0.26, 0.40) - 0.52 * crowd
    fov = rng.uniform(0.42, 0.55)
    tangent = np.tan(fov / 2)
    pitch = np.arctan((0.5 - horizon) * 2 * tangent)
    distance = 0.5 / share(float(count)) / tangent
    eye = (0.0, float(0.35 + distance * np.sin(pitch)), float(-distance * np.cos(pitch)))
    return Camera("perspective", eye, (0.0, 0.35, 0.0), float(fov))


def horizon_of(camera: Camera) -> float:
    """v of the horizon in the image (below 0: above its upper edge)."""
    forward = camera_basis(camera)[2]
    return float(0.5 + 0.5 * forward[1] / np.hypot(forward[0], forward[2]) / np.tan(camera.fov / 2))


def share(count: float) -> float:
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


def slots(rng: np.random.Generator, count: int, size: float) -> list[tuple[float, float, float]]:
    """`count` foot points and widths (u, v, width), back rows first; `size` is a subject's usual side."""
    counts = _row_counts(rng, count)
    rows = len(counts)
    back, front = (0.72, 0.84) if rows == 1 else (min(0.55, size + 0.13 + 0.1 / rows), 0.93)
    shift = rng.uniform(-0.04, 0.02)
    out = []
    for row, columns in enumerate(counts):
        v = rng.uniform(back, front) if rows == 1 else back + (front - back) * row / (rows - 1) + shift
        spread = min(0.94, max(0.94 if columns > 2 else 0.0, columns * size * rng.uniform(1.15, 1.5)))
        start = 0.5 - spread / 2 + rng.uniform(-1, 1) * max(0.0, 0.47 - spread / 2) * 0.8
        width = spread / columns
        for column in range(columns):
            u = start + width * (column + 0.5) + rng.uniform(-0.12, 0.12) * width
            out.append((float(u), float(v + rng.uniform(-0.25, 0.25) * size * 0.3), float(width)))
    return out


def put(subject: Subject, camera: Camera, u: float, v: float, width: float, size: float) -> Subject:
    """`subject` with its foot at image point (u, v), about `size` large and at most `width` wide there."""
    v = min(v, 0.97)
    size = size * min(1.2, max(0.92, (0.7 / filled(subject.kind, subject.pose, subject.yaw)) ** 0.4))
    here = replace(subject, position=ground_point(camera, u, v), scale=1.0, height=0.0)
    for _ in range(2):  # perspective changes the size a little: one correction suffices
        u0, v0, u1, v1 = projected_box(camera, here)
        wide, high = u1 - u0, v1 - v0
        ratio = min(size / np.sqrt(wide * high), 1.12 * width / wide, 1.45 * size / high)
        here = replace(here, scale=float(here.scale * ratio))
    u0, v0, u1, v1 = projected_box(camera, here)
    sideways = max(0.02 - u0, 0.0) - max(u1 - 0.98, 0.0)
    upwards = max(v1 - 0.98, 0.0) - max(0.03 - v0, 0.0)
    return replace(here, position=ground_point(camera, u + sideways, v - upwards))


def put_on(subject: Subject, support: Subject, rng: np.random.Generator, size: float) -> Subject:
    """`subject` on the flat top of `support`, at most as wide as it and about `size` times its height."""
    top = SUPPORTS[support.kind] * support.scale
    low, high = _extent(subject.kind, subject.pose, subject.yaw)
    low_s, high_s = _extent(support.kind, support.pose, 0.0) * support.scale
    room = 0.85 * min(high_s[0] - low_s[0], high_s[2] - low_s[2])
    footprint = min(high[0] - low[0], high[2] - low[2])
    scale = min(size * (high_s[1] - low_s[1]) / (high[1] - low[1]), 1.4 * room / footprint)
    aside = 0.1 * support.scale * rng.uniform(-1, 1)
    x, z = support.position
    return replace(
        subject, position=(x + aside, z), height=float(support.height + top), scale=float(scale)
    )


def stands_on(rider: Subject, support: Subject) -> bool:
    """Whether `rider` was put on `support`."""
    if support.kind not in SUPPORTS or rider.height <= 0:
        return False
    top = support.height + SUPPORTS[support.kind] * support.scale
    near = np.hypot(*np.subtract(support.position, rider.position)) < 0.3 * support.scale
    return bool(near) and abs(top - rider.height) < 1e-3


def supports_of(subjects: Sequence[Subject]) -> dict[int, int]:
    """{i: j} for every subject i that stands on a subject j; indices from 0."""
    return {
        i: j for i, rider in enumerate(subjects) for j, support in enumerate(subjects) if stands_on(rider, support)
    }


def hidden_shares(camera: Camera, subjects: list[Subject]) -> np.ndarray:
    """[s]: share of each subject's box that nearer boxes cover or the frame cuts (an upper estimate)."""
    boxes = np.array([projected_box(camera, s) for s in subjects])
    nearness = np.array([-s.position[1] + 1e-3 * s.height for s in subjects])
    steps = (np.arange(12) + 0.5) / 12
    out = []
    for i, (u0, v0, u1, v1) in enumerate(boxes):
        u, v = np.meshgrid(u0 + steps * (u1 - u0), v0 + steps * (v1 - v0))
        covered = (u < 0) | (u > 1) | (v < 0) | (v > 1)
        for j in np.flatnonzero(nearness > nearness[i]):
            a0, b0, a1, b1 = boxes[j]
            slack = 0.08 * (a1 - a0)
            covered |= (u > a0 + slack) & (u < a1 - slack) & (v > b0 + slack) & (v < b1)
        out.append(covered.mean())
    return np.array(out)
