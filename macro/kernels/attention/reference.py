"""The definition of attention under the attention mask: dense, float32 softmax, for any backend.

s[q, k] = q . k / sqrt(d) + bias[k]    where q sees k
attended[q] = sum_k exp(s[q, k] - lse[q]) v[k],    lse[q] = log sum_k exp(s[q, k])
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool

from macro.sentence.attention_mask import MASK_FIELDS, mask_mod

# Finite, so that a row without any visible key stays finite before it is set to zero.
MASK_VALUE = -1e30


def attention_mask(q_meta: Mapping, k_meta: Mapping) -> Bool[Array, "b nq nk"]:
    """Whether each query sees each key, from the metadata of both."""
    q = {name: q_meta[name][:, :, None] for name in MASK_FIELDS}
    k = {name: k_meta[name][:, None, :] for name in MASK_FIELDS}
    return mask_mod(q, k)


def attention_reference(q, k, v, q_meta: Mapping, k_meta: Mapping, k_bias=None) -> tuple[Array, Array]:
    """The dense reference for every attention kernel; arguments and results as in `api.attention_with_lse`."""
    mask = attention_mask(q_meta, k_meta)[:, None, None]
    groups = k.shape[2]
    # Heads before tokens, so that each product is a plain batched matrix product.
    q = rearrange(q, "b n (g r) d -> b g r n d", g=groups) * (q.shape[-1] ** -0.5)
    k, v = (rearrange(x, "b n g d -> b g n d") for x in (k, v))
    scores = jnp.einsum("bgrqd,bgkd->bgrqk", q, k, preferred_element_type=jnp.float32)
    if k_bias is not None:
        scores = scores + jax.lax.stop_gradient(k_bias)[:, None, None, None]
    scores = jnp.where(mask, scores, MASK_VALUE)
    top = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    # The division is after the product with v, where it is nk / d times cheaper.
    attended = jnp.einsum("bgrqk,bgkd->bgrqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    seeing = jnp.any(mask, axis=-1, keepdims=True)
    attended = jnp.where(seeing, attended / total, 0.0)
    lse = jax.lax.stop_gradient(jnp.where(seeing, top + jnp.log(total), MASK_VALUE))[..., 0]
    return rearrange(attended, "b g r n d -> b n (g r) d").astype(v.dtype), rearrange(lse, "b g r n -> b n (g r)")
