"""A whole model before training: the composer and the autoencoder, at random."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from macro.models.composer import Composer, smallest_batch
from macro.models.vae import VAE
from macro.models.variants import ModelConfig


def initial(key: Array, config: ModelConfig) -> dict:
    """Parameters `{"composer", "vae"}`, float32; under `jax.eval_shape` their shapes, and nothing is allocated."""
    composer_key, vae_key = jax.random.split(key)
    return {
        "composer": Composer(config).init(composer_key, *smallest_batch(config))["params"],
        "vae": VAE(config.vae).init(vae_key, jnp.zeros((1, 32, 32, 3)), vae_key)["params"],
    }
