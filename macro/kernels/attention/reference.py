"""The definition of attention under the rule of sight: dense, float32 softmax, for any backend."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from macro.sentence.sight import FIELDS, visible

# Finite, so that a row without any visible key stays finite before it is set to zero.
_HIDDEN = -1e30


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
    dtype = q.dtype
    kv_heads = k.shape[2]
    mask = sight_mask(q_meta, k_meta)
    q = rearrange(q, "b n (kv r) d -> b n kv r d", kv=kv_heads) * (q.shape[-1] ** -0.5)
    scores = jnp.einsum("bqgrd,bkgd->bgrqk", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores, _HIDDEN)
    # exp and sum by hand: the division moves behind the product with v, where it is nk / d times cheaper.
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1)
    attended = jnp.einsum("bgrqk,bkgd->bgrqd", weights.astype(dtype), v, preferred_element_type=jnp.float32)
    attended = attended / total[..., None]
    attended = jnp.where(jnp.any(mask, axis=-1)[:, None, None, :, None], attended, 0.0)
    return rearrange(attended, "b g r q d -> b q (g r) d").astype(dtype)
