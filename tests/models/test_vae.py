"""The VAE at small width: shapes, inverses, padding, and the published parameter count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.models import vae as vae_lib
from macro.models.vae import VAE, denormalise, normalise, patchify, sample, unpatchify
from macro.models.variants import VAEConfig

SMALL = VAEConfig(channels=32, multipliers=(1, 1, 2), res_blocks=1, z=4)


@pytest.fixture(scope="module")
def params():
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    shapes = jax.eval_shape(VAE(SMALL).init, jax.random.key(0), images, jax.random.key(1))["params"]
    rng = np.random.default_rng(0)  # drawn here: compiling `init` takes longer than all that is tested
    return jax.tree.map(lambda leaf: rng.normal(0, 0.05, leaf.shape).astype(np.float32), shapes)


def run(method, params, x, dtype=jnp.float32):
    return jax.jit(lambda params, x: VAE(SMALL, dtype).apply({"params": params}, x, method=method))(params, x)


def test_released_size():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(VAE(VAEConfig()).init, jax.random.key(0), images, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 83_819_683
    assert len(jax.tree.leaves(shapes)) == 244


def test_shapes_of_both_ways(params):
    images = jax.random.uniform(jax.random.key(2), (1, 16, 24, 3), minval=-1)
    mean, logvar = run("encode", params, images)
    assert mean.shape == logvar.shape == (1, 4, 6, 4)
    decoded = run("decode", params, mean)
    assert decoded.shape == images.shape and decoded.dtype == jnp.float32


def test_odd_sides_are_refused(params):
    with pytest.raises(ValueError, match="multiples of 4"):
        run("encode", params, jnp.zeros((1, 18, 16, 3)))


def test_bfloat16_activations_stay_near_float32(params):
    images = jax.random.uniform(jax.random.key(2), (1, 16, 16, 3), minval=-1)
    exact, _ = run("encode", params, images)
    rough, _ = run("encode", params, images, jnp.bfloat16)
    assert rough.dtype == jnp.float32
    difference = jnp.abs(rough - exact).max() / jnp.abs(exact).max()
    assert 0 < difference < 0.05


def test_downsample_pads_below_and_right():
    module = vae_lib.Downsample()
    kernel = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0)  # picks the top left pixel of every window
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    y = module.apply({"params": {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}}, x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 2], [8, 10]])


def test_upsample_repeats_pixels():
    module = vae_lib.Upsample()
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    y = module.apply({"params": {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}}, x)
    np.testing.assert_array_equal(y[0, :, :, 0], np.kron([[0, 1], [2, 3]], np.ones((2, 2))))


def test_patchify_order_and_inverse():
    latents = jax.random.normal(jax.random.key(0), (2, 4, 6, 16))
    tokens = patchify(latents, 2)
    assert tokens.shape == (2, 6, 64)
    # Token 4 is row 1, column 1; its value (ph 1, pw 0, z 5) is latent row 3, column 2, channel 5.
    assert tokens[1, 4, (1 * 2 + 0) * 16 + 5] == latents[1, 3, 2, 5]
    np.testing.assert_array_equal(unpatchify(tokens, 2, 2, 3), latents)


def test_normalise_and_inverse():
    latents = jax.random.normal(jax.random.key(0), (1, 2, 2, 16))
    config = VAEConfig()
    np.testing.assert_allclose(normalise(latents, config), 0.3611 * (latents - 0.1159), rtol=1e-6)
    np.testing.assert_allclose(denormalise(normalise(latents, config), config), latents, rtol=1e-5, atol=1e-6)


def test_sample_has_the_posterior_s_moments():
    mean, logvar = jnp.full((1, 64, 64, 4), 0.5), jnp.full((1, 64, 64, 4), 2 * np.log(0.1))
    drawn = sample(mean, logvar, jax.random.key(0))
    assert abs(drawn.mean() - 0.5) < 0.005 and abs(drawn.std() - 0.1) < 0.005
