"""Fixed embeddings: 2-D sine-cosine positions of patches and latents, and the sinusoids of time.

Both are computed where they are used instead of being stored: the released tables follow from these formulas.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

TIME_FREQUENCIES = 128


def position_embedding(position: Int[Array, "b n"], side: int, width: int) -> Float[Array, "b n {width}"]:
    """2-D sine-cosine embedding of `position = row * side + column`, float32.

    The column takes the first half of the width, the row the second; each half is sine, then cosine, of the
    coordinate times `10000^(-i / (width / 4))`.
    """
    quarter = width // 4
    frequency = 10000.0 ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)
    row = (position // side)[..., None].astype(jnp.float32) * frequency
    column = (position % side)[..., None].astype(jnp.float32) * frequency
    return jnp.concatenate([jnp.sin(column), jnp.cos(column), jnp.sin(row), jnp.cos(row)], axis=-1)


def time_sinusoids(t: Float[Array, "*shape"]) -> Float[Array, "*shape 256"]:
    """Cosines, then sines, of `t * 10000^(-i/128)` for time `t` in 0..1 (not scaled), float32."""
    exponent = jnp.arange(TIME_FREQUENCIES, dtype=jnp.float32) / TIME_FREQUENCIES
    angle = t[..., None].astype(jnp.float32) * jnp.exp(-jnp.log(10000.0) * exponent)
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
