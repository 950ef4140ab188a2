"""The image autoencoder: moments, posterior sample, reconstruction; alone and as a padded training batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from parity.golden import Golden

from macro.models.vae import VAE, normalise, patchify


def last(x) -> np.ndarray:
    """Channels first to channels last."""
    return np.moveaxis(np.asarray(x), 1, -1)


@partial(jax.jit, static_argnums=(0, 2))
def _run(config, params, method: str, x):
    return VAE(config).apply({"params": params}, x, method=method)


def check_weights_fit(golden: Golden):
    config = golden.model.vae
    images = jax.ShapeDtypeStruct((1, 4 * config.stride, 4 * config.stride, 3), np.float32)
    ours = jax.eval_shape(VAE(config).init, jax.random.key(0), images, jax.random.key(0))["params"]
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, golden.vae)


def check_moments_sample_and_reconstruction(golden: Golden):
    recorded, config = golden.load("vae"), golden.model.vae
    mean, logvar = _run(config, golden.vae, "encode", last(recorded["x"]))
    golden.close(jnp.concatenate([mean, logvar], -1), last(recorded["moments"]), "vae moments")
    z = normalise(mean + jnp.exp(0.5 * logvar) * last(recorded["eps"]), config)
    golden.close(z, last(recorded["z"]), "vae z")
    golden.close(_run(config, golden.vae, "decode", last(recorded["z"])), last(recorded["decoded"]), "vae decoded")


def check_padded_training_batch(golden: Golden):
    vae, recorded = golden.vae, golden.load("train_outputs")
    mean, logvar = _run(golden.model.vae, vae, "encode", last(golden.load("train_inputs")["padded_images"]))
    golden.close(jnp.concatenate([mean, logvar], -1), last(recorded["vae_moments"]), "train vae_moments")
    z = normalise(mean + jnp.exp(0.5 * logvar) * last(recorded["vae_noise"]), golden.model.vae)
    golden.close(z, last(recorded["padded_latent"]), "train padded_latent")


def check_patch_order(golden: Golden):
    """Upstream's order inside a token is "c h p w q -> h w p q c"."""
    p, z = golden.model.latent_patch, golden.model.vae.z
    latent = np.random.default_rng(0).normal(size=(1, 2 * p, 3 * p, z)).astype(np.float32)
    first = np.moveaxis(latent[0], -1, 0).reshape(z, 2, p, 3, p)
    expected = np.einsum("chpwq->hwpqc", first).reshape(6, p * p * z)
    np.testing.assert_array_equal(patchify(jnp.asarray(latent), p)[0], expected)
