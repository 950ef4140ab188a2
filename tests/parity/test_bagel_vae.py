"""Our VAE against the recorded one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.bagel import FOLDER, assert_close, load_tree, needs_goldens, vae_config

from macro.models.vae import VAE, normalise, patchify

pytestmark = needs_goldens


@pytest.fixture(scope="module")
def vae():
    model, params = VAE(vae_config()), load_tree()["vae"]

    def run(method, *args):
        with jax.default_matmul_precision("highest"):
            return model.apply({"params": params}, *args, method=method)

    return run


def last(x):
    """Channels first to channels last."""
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def test_weights_fit_the_module():
    config = vae_config()
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    ours = jax.eval_shape(VAE(config).init, jax.random.key(0), images, jax.random.key(0))["params"]
    recorded = load_tree()["vae"]
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, recorded)


def test_moments_and_sample_and_decode(vae):
    golden = np.load(FOLDER / "vae.npz")
    mean, logvar = vae("encode", last(golden["x"]))
    assert_close(jnp.concatenate([mean, logvar], -1), last(golden["moments"]), "moments")
    z = normalise(mean + jnp.exp(0.5 * logvar) * last(golden["eps"]), vae_config())
    assert_close(z, last(golden["z"]), "z")
    assert_close(vae("decode", last(golden["z"])), last(golden["decoded"]), "decoded")


def test_padded_training_batch(vae):
    inputs, golden = np.load(FOLDER / "train_inputs.npz"), np.load(FOLDER / "train_outputs.npz")
    mean, logvar = vae("encode", last(inputs["padded_images"]))
    assert_close(jnp.concatenate([mean, logvar], -1), last(golden["vae_moments"]), "moments")
    z = normalise(mean + jnp.exp(0.5 * logvar) * last(golden["vae_noise"]), vae_config())
    assert_close(z, last(golden["padded_latent"]), "latent")


def test_patch_order_follows_upstream():
    latent = np.random.default_rng(0).normal(size=(1, 4, 6, 16)).astype(np.float32)
    first = np.moveaxis(latent[0], -1, 0).reshape(16, 2, 2, 3, 2)  # c h p w q
    expected = np.einsum("chpwq->hwpqc", first).reshape(6, 64)
    np.testing.assert_array_equal(patchify(jnp.asarray(latent), 2)[0], expected)
