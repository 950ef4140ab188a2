"""Textures and marks as functions of the point alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from macro.scenes.graph import DECALS, TEXTURES
from macro.scenes.render import textures

RNG = np.random.default_rng(0)
POINTS = tuple(jnp.asarray(v) for v in RNG.uniform(-50, 50, (3, 4000)).astype(np.float32))
UPWARDS = tuple(jnp.full(4000, n, jnp.float32) for n in (0.0, 1.0, 0.0))


def test_value_noise_is_smooth_bounded_and_fixed():
    noise = np.asarray(textures.value_noise(*POINTS))
    step = np.asarray(textures.value_noise(POINTS[0] + 1e-2, *POINTS[1:]))
    assert noise.min() >= 0 and noise.max() <= 1 and noise.std() > 0.1
    assert np.abs(step - noise).max() < 0.03
    # Integer points show the hash itself. It must never change: stored images were rendered with it.
    corner = textures.value_noise(jnp.float32(3), jnp.float32(-7), jnp.float32(11))
    h = (3 * 374761393 + (-7 % 2**32) * 668265263 + 11 * 2147483647) % 2**32
    h = ((h ^ (h >> 13)) * 1274126177) % 2**32
    np.testing.assert_allclose(corner, (h ^ (h >> 16)) / 2**32, rtol=1e-6)


@pytest.mark.parametrize("name", TEXTURES)
def test_the_main_colour_keeps_at_least_half(name):
    weight = np.asarray(textures.texture(TEXTURES.index(name), POINTS, UPWARDS))
    assert ((weight >= 0) & (weight <= 1)).all()
    assert weight.mean() < 0.53
    assert (weight.mean() > 0.2) == (name != "plain")


def _area(name: str, w: float) -> float:
    side = jnp.linspace(-1.5, 1.5, 121)
    u, v = jnp.meshgrid(side, side)
    covered = textures.mark(textures.MARKS.index(name), u, v, jnp.full_like(u, w))
    return float(covered.mean()) * 9


@pytest.mark.parametrize("name", DECALS)
def test_decals_are_of_some_size_and_show_on_both_sides(name):
    assert 0.8 < _area(name, 1.0) < 2.8
    assert _area(name, 1.0) == _area(name, -1.0)


def test_a_ring_has_a_hole_and_a_star_five_points():
    at = lambda name, u, v: bool(textures.mark(textures.MARKS.index(name), *map(jnp.float32, (u, v, 1.0))))  # noqa: E731
    assert at("ring", 0.7, 0) and not at("ring", 0, 0) and at("spot", 0, 0)
    for k in range(5):
        tip, notch = 2 * np.pi * k / 5, 2 * np.pi * (k + 0.5) / 5
        assert at("star", 0.9 * np.sin(tip), 0.9 * np.cos(tip))
        assert not at("star", 0.6 * np.sin(notch), 0.6 * np.cos(notch))


def test_faces_look_to_the_front_only():
    assert _area("face", 1.0) > 0.1
    assert _area("face", -1.0) == 0
