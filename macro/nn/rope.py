"""Rotary position embedding in the half-rotation form of Qwen2 (RoFormer, eq. 34, with halves for pairs)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rope_angles(
    rope: Int[Array, "b n"], head_dim: int, theta: float
) -> tuple[Float[Array, "b n half"], Float[Array, "b n half"]]:
    """Cosine and sine of position times frequency `theta^(-2i/head_dim)`, float32."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = rope[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Float[Array, "b n h d"], cos: Float[Array, "b n half"], sin: Float[Array, "b n half"]
) -> Float[Array, "b n h d"]:
    """Turns the first half of each head against the second, in float32; keeps the dtype of `x`."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
