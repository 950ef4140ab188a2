"""Solids as inside-tests in float64, and first hits by marching: a second opinion that shares no formula."""

import numpy as np

from macro.scenes.render import primitives


def inside(family: int, shape: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Whether points [..., 3] in a primitive's frame are in the solid."""
    x, y, z = np.moveaxis(local, -1, 0)
    q0, q1, q2, low, high = np.asarray(shape, np.float64)
    if family == primitives.QUADRIC:
        return (x * x + z * z <= q0 + q1 * y + q2 * y * y) & (low <= y) & (y <= high)
    if family == primitives.BOX:
        return np.abs(local).max(-1) <= 1
    return x * x + (y - np.clip(y, -q0, q0)) ** 2 + z * z <= 1


def first_hit(family, shape, affine, origin, direction, reach: float, steps: int = 4000) -> float:
    """Distance to the first entry along one ray, inf for none; marching, then bisection."""
    affine = np.asarray(affine, np.float64)

    def is_inside(t):
        points = np.asarray(origin) + np.asarray(t)[..., None] * np.asarray(direction)
        return inside(family, shape, points @ affine[:, :3].T + affine[:, 3])

    t = np.linspace(0, reach, steps)
    hits = np.flatnonzero(is_inside(t))
    if not len(hits):
        return np.inf
    low, high = t[max(hits[0] - 1, 0)], t[hits[0]]
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if is_inside(middle) else (middle, high)
    return high
