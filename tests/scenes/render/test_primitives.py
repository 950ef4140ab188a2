"""Closed-form hits: by hand where the answer is plain, and against marching in float64 for random rays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes.solids import first_hit

from macro.scenes.assets.parts import rotation
from macro.scenes.render import primitives
from macro.scenes.render.primitives import BOX, CAPSULE, MISS, QUADRIC

SPHERE = (1.0, 0.0, -1.0, -1.0, 1.0)
CYLINDER = (1.0, 0.0, 0.0, -1.0, 1.0)
CONE = (0.25, -0.5, 0.25, -1.0, 1.0)
FRUSTUM = (0.64, -0.32, 0.04, -1.0, 1.0)
DOME = (1.0, 0.0, -1.0, 0.0, 1.0)
PILL = (1.5, 0.0, 0.0, 0.0, 0.0)
NONE = (0.0,) * 5
SOLIDS = {
    "sphere": (QUADRIC, SPHERE), "cylinder": (QUADRIC, CYLINDER), "cone": (QUADRIC, CONE),
    "frustum": (QUADRIC, FRUSTUM), "dome": (QUADRIC, DOME), "box": (BOX, NONE), "capsule": (CAPSULE, PILL),
}
UNMOVED = np.eye(3, 4)


@jax.jit
def _cast(family, shape, affine, origins, directions):
    t = primitives.intersect(family, shape, affine, tuple(origins.T), tuple(directions.T))
    reach = jnp.where(jnp.isfinite(t), t, 0.0)
    points = origins + reach[:, None] * directions
    local = primitives.to_frame(affine, tuple(points.T))
    return t, jnp.stack(primitives.normal(family, shape, local), -1)


def cast(name, origins, directions, affine=UNMOVED):
    """Hit distances and frame normals of rays [n, 3] at the named solid."""
    family, shape = SOLIDS[name]
    rays = np.atleast_2d(origins), np.atleast_2d(directions)
    arrays = [np.asarray(a, np.float32) for a in (shape, affine, *rays)]
    t, normal = _cast(np.int32(family), *arrays)
    normal = np.asarray(normal)
    return np.asarray(t), normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)


@pytest.mark.parametrize(
    ("name", "origin", "direction", "distance", "normal"),
    [
        ("sphere", (0, 0, -5), (0, 0, 1), 4.0, (0, 0, -1)),
        ("sphere", (3, 0, 0), (-1, 0, 0), 2.0, (1, 0, 0)),
        ("box", (0.3, -0.4, -5), (0, 0, 1), 4.0, (0, 0, -1)),
        ("box", (5, 0.2, 0.1), (-1, 0, 0), 4.0, (1, 0, 0)),
        ("box", (0.9, 7, 0.5), (0, -1, 0), 6.0, (0, 1, 0)),
        ("cylinder", (0.5, 4, 0.5), (0, -1, 0), 3.0, (0, 1, 0)),
        ("cylinder", (0.5, -4, 0.5), (0, 1, 0), 3.0, (0, -1, 0)),
        ("cylinder", (0, 0.9, -3), (0, 0, 1), 2.0, (0, 0, -1)),
        ("cone", (0, -3, 0.2), (0, 1, 0), 2.0, (0, -1, 0)),
        ("cone", (-4, 0, 0), (1, 0, 0), 3.5, (-2 / 5**0.5, 1 / 5**0.5, 0)),
        ("cone", (0.5, 4, 0), (0, -1, 0), 4.0, (2 / 5**0.5, 1 / 5**0.5, 0)),
        ("dome", (0.1, -2, 0.1), (0, 1, 0), 2.0, (0, -1, 0)),
        ("capsule", (0, 9, 0), (0, -1, 0), 6.5, (0, 1, 0)),
        ("capsule", (-4, 1.2, 0), (1, 0, 0), 3.0, (-1, 0, 0)),
    ],
)
def test_plain_cases(name, origin, direction, distance, normal):
    t, n = cast(name, origin, direction)
    np.testing.assert_allclose(t, [distance], atol=1e-5)
    np.testing.assert_allclose(n, [normal], atol=1e-4)


@pytest.mark.parametrize("name", SOLIDS)
def test_misses_and_rays_that_leave(name):
    beside = cast(name, (0, 0, -5), (0.6, 0, 0.8))[0]
    behind = cast(name, (0, 0.2, 5), (0, 0, 1))[0]
    assert beside == MISS
    assert behind == MISS


@pytest.mark.parametrize("name", SOLIDS)
def test_random_rays_agree_with_marching_in_float64(name):
    rng = np.random.default_rng(len(name))
    family, shape = SOLIDS[name]
    affine = np.concatenate([np.diag([1.3, 0.7, 2.0]) @ rotation(0.4, 0.9, -0.3), [[0.1], [-0.4], [0.2]]], 1)
    middle = -np.linalg.solve(affine[:, :3], affine[:, 3])
    origins = middle + 6 * (d := rng.normal(size=(60, 3))) / np.linalg.norm(d, axis=1, keepdims=True)
    aims = middle + rng.uniform(-1.2, 1.2, (60, 3)) - origins
    directions = aims / np.linalg.norm(aims, axis=1, keepdims=True)
    t, _ = cast(name, origins, directions, affine)
    expected = np.array(
        [first_hit(family, shape, affine, o, d, 12.0) for o, d in zip(origins, directions, strict=True)]
    )
    assert np.isfinite(expected).sum() > 10
    np.testing.assert_array_equal(np.isfinite(t), np.isfinite(expected))
    np.testing.assert_allclose(t, expected, atol=2e-4)


def test_an_ellipsoid_is_a_sphere_seen_in_a_scaled_frame():
    size, centre = np.array([0.5, 2.0, 1.5]), np.array([1.0, -1.0, 3.0])
    affine = np.concatenate([np.diag(1 / size), -(centre / size)[:, None]], 1)
    t, normal = cast("sphere", centre - [4, 0, 0], (1, 0, 0), affine)
    np.testing.assert_allclose(t, [3.5], atol=1e-5)
    np.testing.assert_allclose(normal, [(-1, 0, 0)], atol=1e-5)


def test_small_and_far_keeps_its_outline():
    """A 3 cm ball at 30 m: float32 must not lose it."""
    offsets = np.linspace(-0.04, 0.04, 81)
    affine = np.concatenate([np.eye(3) / 0.03, [[0], [0], [-30 / 0.03]]], 1)
    origins = np.stack([offsets, 0 * offsets, 0 * offsets], -1)
    t, _ = cast("sphere", origins, np.tile([0.0, 0.0, 1.0], (81, 1)), affine)
    np.testing.assert_array_equal(np.isfinite(t)[np.abs(np.abs(offsets) - 0.03) > 2e-4],
                                  (np.abs(offsets) < 0.03)[np.abs(np.abs(offsets) - 0.03) > 2e-4])
