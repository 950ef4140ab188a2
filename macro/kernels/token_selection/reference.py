"""The definition of how much attention image tokens receive: dense, float32.

    A[t, u] = mean over heads of exp(q_t . k_u / sqrt(d) + bias[u] - lse[t])     where t sees u, else 0
    received[0, u] = sum of A[t, u] over text t,    received[1, u] = sum of A[t, u] over t in other images than u's

Tests hold `api.attention_received` and `api.query_counts` against it.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from macro.kernels.attention.reference import MASK_VALUE, attention_mask

TEXT = -1  # the image of a token that belongs to none


def query_classes(q_image: Int[Array, "*q"], k_image: Int[Array, "*k"]) -> tuple[Array, Array]:
    """Which queries are text, and which stand in another image than the key; none for a key that is text.

    Args:
        q_image, k_image: image numbers that broadcast against each other.
    """
    in_image = k_image > TEXT
    return (q_image == TEXT) & in_image, (q_image > TEXT) & (q_image != k_image) & in_image


def _classes_seen(q_meta: Mapping, k_meta: Mapping, q_image: Array, k_image: Array) -> Array:
    """Which queries of each class see a key, `[b, 2, nq, nk]`."""
    counted = jnp.stack(query_classes(q_image[:, :, None], k_image[:, None, :]), axis=1)
    return counted & attention_mask(q_meta, k_meta)[:, None]


def attention_received_reference(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    lse: Float[Array, "b nq h"],
    q_meta: Mapping,
    k_meta: Mapping,
    q_image: Int[Array, "b nq"],
    k_image: Int[Array, "b nk"],
    k_bias: Float[Array, "b nk"] | None = None,
) -> Float[Array, "b 2 nk"]:
    """Dense twin of `api.attention_received`; arguments and results as there."""
    q = rearrange(q, "b n (g r) d -> b g r n d", g=k.shape[2]) * (q.shape[-1] ** -0.5)
    scores = jnp.einsum("bgrqd,bkgd->bgrqk", q, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(scores.shape[0], -1, *scores.shape[3:])
    if k_bias is not None:
        scores = scores + k_bias[:, None, None]
    lse = jnp.where(lse > MASK_VALUE, lse, jnp.inf).swapaxes(1, 2)[..., None]
    # Hidden scores first: they are in no sum, and their weight may be infinite.
    scores = jnp.where(attention_mask(q_meta, k_meta)[:, None], scores, MASK_VALUE)
    weights = jnp.mean(jnp.exp(scores - lse), axis=1)
    counted = _classes_seen(q_meta, k_meta, q_image, k_image)
    return jnp.sum(jnp.where(counted, weights[:, None], 0.0), axis=2)


def query_counts_reference(
    q_meta: Mapping, k_meta: Mapping, q_image: Int[Array, "b nq"], k_image: Int[Array, "b nk"]
) -> Float[Array, "b 2 nk"]:
    """Dense twin of `api.query_counts`."""
    return jnp.sum(_classes_seen(q_meta, k_meta, q_image, k_image), axis=2, dtype=jnp.float32)
