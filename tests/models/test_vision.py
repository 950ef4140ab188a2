"""The packed vision encoder: images do not see one another, padding does no harm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.models.variants import VisionConfig
from macro.models.vision import Connector, Vision

CONFIG = VisionConfig(width=32, mlp=48, layers=2, heads=2, patch=4, side=4)


def packed():
    """Two sentences in a row: images of 4, 2 | 3 patches, then 2 places of padding."""
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(1, 11, 48)).astype(np.float32)
    sample = np.array([[0] * 6 + [1] * 3 + [-1] * 2], np.int32)
    span = np.array([[1] * 4 + [3] * 2 + [1] * 3 + [0] * 2], np.int32)
    position = np.array([[0, 1, 4, 5, 0, 1, 0, 1, 2, 0, 0]], np.int32)
    return tuple(jnp.asarray(x) for x in (patches, position, sample, span))


@pytest.fixture(scope="module")
def vision():
    params = jax.jit(Vision(CONFIG).init)(jax.random.key(0), *packed())["params"]
    run = jax.jit(lambda *streams: Vision(CONFIG).apply({"params": params}, *streams))
    return params, run


def test_parameters_are_stacked_by_layer(vision):
    params, _ = vision
    assert params["layers"]["fc1"]["kernel"].shape == (2, 32, 48)
    first, second = params["layers"]["q"]["kernel"]
    assert not np.allclose(first, second)


def test_padding_is_finite_and_changes_nothing(vision):
    _, run = vision
    patches, *places = packed()
    out = run(patches, *places)
    assert np.isfinite(out).all()
    changed = run(patches.at[:, 9:].set(100.0), *places)
    np.testing.assert_array_equal(out[:, :9], changed[:, :9])


@pytest.mark.parametrize("image", [slice(0, 4), slice(4, 6), slice(6, 9)])
def test_only_the_own_image_is_seen(vision, image):
    _, run = vision
    patches, *places = packed()
    moved = run(patches.at[0, image.start].add(1.0), *places) - run(patches, *places)
    reached = np.abs(np.asarray(moved[0])).max(-1) > 1e-6
    assert reached[image].all() and reached.sum() == image.stop - image.start


def test_place_matters(vision):
    _, run = vision
    patches, position, sample, span = packed()
    out = run(patches, position, sample, span)
    shifted = run(patches, position.at[0, 0].set(2), sample, span)
    assert not np.allclose(out[0, 0], shifted[0, 0])


def test_connector_formula():
    x = jax.random.normal(jax.random.key(0), (1, 3, 8))
    params = jax.jit(Connector(16).init)(jax.random.key(1), x)["params"]
    inner = x @ params["fc1"]["kernel"] + params["fc1"]["bias"]
    inner = 0.5 * inner * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    expected = inner @ params["fc2"]["kernel"] + params["fc2"]["bias"]
    np.testing.assert_allclose(Connector(16).apply({"params": params}, x), expected, rtol=1e-4, atol=1e-5)
