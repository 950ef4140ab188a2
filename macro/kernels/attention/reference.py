"""The definition of attention under the rule of sight: dense, float32 softmax, for any backend."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from macro.sentence.sight import FIELDS, visible

# Finite, so that a row without any visible key stays finite before it is set to zero.
HIDDEN = -1e30


def sight_mask(q_meta: Mapping, k_meta: Mapping) -> Bool[Array, "b nq nk"]:
    """The rule of sight for every pair of tokens."""
    q = {name: q_meta[name][:, :, None] for name in FIELDS}
    k = {name: k_meta[name][:, None, :] for name in FIELDS}
    return visible(q, k)


def attention_reference(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    v: Float[Array, "b nk kv d"],
    q_meta: Mapping,
    k_meta: Mapping,
) -> Float[Array, "b nq h d"]:
    """Dense twin of every attention kernel; arguments as in `api.attention`."""
    mask = sight_mask(q_meta, k_meta)[:, None, None]
    groups = k.shape[2]
    # Heads before tokens, so that each product is a plain batched matrix product.
    q = rearrange(q, "b n (g r) d -> b g r n d", g=groups) * (q.shape[-1] ** -0.5)
    k, v = (rearrange(x, "b n g d -> b g n d") for x in (k, v))
    scores = jnp.einsum("bgrqd,bgkd->bgrqk", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores, HIDDEN)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    # The division comes after the product with v, where it is nk / d times cheaper.
    attended = jnp.einsum("bgrqk,bgkd->bgrqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    attended = jnp.where(jnp.any(mask, axis=-1, keepdims=True), attended / total, 0.0)
    return rearrange(attended, "b g r n d -> b n (g r) d").astype(v.dtype)
