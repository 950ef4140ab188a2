"""The flow loss on latent tokens (MUSIC, L2; BAGEL's MSE).

Each latent token of a packed sequence takes its values from the sequence's table of images (`macro/models/vae.py`),
encoded by the frozen VAE.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from macro.diffusion import flow
from macro.diffusion.flow import logit_normal
from macro.models.variants import ModelConfig


def add_noise(
    table: Float[Array, "b m c"], latent: Mapping, key: Array, config: ModelConfig
) -> tuple[Float[Array, "b n c"], Float[Array, "b n"], Float[Array, "b n c"]]:
    """Noises the latent stream: (x_t, t, target velocity). Clean tokens have t = 0 and keep their values."""
    x_0 = jnp.take_along_axis(table, latent["source"][..., None], axis=1)
    t = logit_normal(latent["t_raw"], config.timestep_shift)
    eps = jax.random.normal(key, x_0.shape, x_0.dtype)
    return flow.interpolate(x_0, eps, t), t, flow.velocity(x_0, eps)


def flow_losses(
    velocity: Float[Array, "b n c"], target: Float[Array, "b n c"], latent: Mapping
) -> tuple[Float[Array, "b n"], Float[Array, "b n"]]:
    """Squared error of each latent token, mean over channels, and its weight (0 for clean tokens and padding)."""
    error = jnp.mean(jnp.square(velocity - target), axis=-1)
    return error, flow_weights(latent)


def flow_weights(latent: Mapping) -> Float[Array, "b n"]:
    """The loss weight of each latent token: 0 for clean ones and padding."""
    return latent["loss"].astype(jnp.float32)
