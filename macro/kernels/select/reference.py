"""The definition of token selection: dense, float32, for any backend.

    A[t, u] = mean over heads of exp(q_t . k_u / sqrt(d) + bias[u] - log_sum[t])     where t sees u, else 0
    sums[0, u] = sum of A[t, u] over text t,    sums[1, u] = sum of A[t, u] over t in other pictures than u's

and then, inside each picture, the tokens with the highest score, in their order. MACRO's text-aligned selection
(arXiv 2603.25319; no code of it was released).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int, Shaped

from macro.kernels.attention.reference import HIDDEN, sight_mask

TEXT = -1  # the picture of a token that belongs to none


class Kept(NamedTuple):
    """Which tokens of each row are kept, in rising order, those that count first.

    Attributes:
        indices: int32 `[b, k]` places in the row; 0 where nothing is kept.
        valid: bool `[b, k]` whether a place is kept at all.
    """

    indices: Array
    valid: Array


def classes(q_picture: Int[Array, "*q"], k_picture: Int[Array, "*k"]) -> tuple[Array, Array]:
    """Which queries are text, and which stand in another picture than the key; none for a key that is text.

    Args:
        q_picture, k_picture: pictures that broadcast against each other.
    """
    pictured = k_picture > TEXT
    return (q_picture == TEXT) & pictured, (q_picture > TEXT) & (q_picture != k_picture) & pictured


def _classes_seen(q_meta: Mapping, k_meta: Mapping, q_picture: Array, k_picture: Array) -> Array:
    """Who sees a key and counts for it, `[b, 2, nq, nk]`."""
    counted = jnp.stack(classes(q_picture[:, :, None], k_picture[:, None, :]), axis=1)
    return counted & sight_mask(q_meta, k_meta)[:, None]


def column_sums_reference(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    log_sum: Float[Array, "b nq h"],
    q_meta: Mapping,
    k_meta: Mapping,
    q_picture: Int[Array, "b nq"],
    k_picture: Int[Array, "b nk"],
    k_bias: Float[Array, "b nk"] | None = None,
) -> Float[Array, "b 2 nk"]:
    """Dense twin of every scoring kernel; arguments and results as in `api.column_sums`."""
    q = rearrange(q, "b n (g r) d -> b g r n d", g=k.shape[2]) * (q.shape[-1] ** -0.5)
    scores = jnp.einsum("bgrqd,bkgd->bgrqk", q, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(scores.shape[0], -1, *scores.shape[3:])
    if k_bias is not None:
        scores = scores + k_bias[:, None, None]
    log_sum = jnp.where(log_sum > HIDDEN, log_sum, jnp.inf).swapaxes(1, 2)[..., None]
    # Hidden scores first: they are in no sum, and their weight may be infinite.
    scores = jnp.where(sight_mask(q_meta, k_meta)[:, None], scores, HIDDEN)
    weights = jnp.mean(jnp.exp(scores - log_sum), axis=1)
    counted = _classes_seen(q_meta, k_meta, q_picture, k_picture)
    return jnp.sum(jnp.where(counted, weights[:, None], 0.0), axis=2)


def column_counts_reference(
    q_meta: Mapping, k_meta: Mapping, q_picture: Int[Array, "b nq"], k_picture: Int[Array, "b nk"]
) -> Float[Array, "b 2 nk"]:
    """Dense twin of `api.column_counts`."""
    return jnp.sum(_classes_seen(q_meta, k_meta, q_picture, k_picture), axis=2, dtype=jnp.float32)


def rank_bits(scores: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Integers in the order of the scores: NaN below everything, -0 and 0 the same."""
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.int32)
    lowest, size = jnp.iinfo(jnp.int32).min, bits & jnp.iinfo(jnp.int32).max
    # Negative floats rise as their bits fall.
    ordered = jnp.where(bits < 0, -size, size)
    infinity = 0x7F800000
    return jnp.where(size > infinity, lowest, ordered)


def choose_reference(
    scores: Float[Array, "b n"], picture: Int[Array, "b n"], quotas: Int[Array, "b p"], size: int
) -> Kept:
    """Twin of `choose.choose` by sorting; arguments and results as there."""
    b, n = scores.shape
    pictures = quotas.shape[1]
    # Not selectable: a last picture, with nothing to keep.
    group = jnp.where((picture >= 0) & (picture < pictures), picture, pictures)
    quotas = jnp.pad(quotas, ((0, 0), (0, 1)))
    rows = jnp.arange(b)[:, None]
    # The sort is stable: of equal scores the earlier token comes first. ~x turns the order of integers round.
    order = jnp.lexsort((~rank_bits(scores), group), axis=-1)
    counts = jnp.sum(group[:, :, None] == jnp.arange(pictures + 1), axis=1)
    begins = jnp.cumsum(counts, axis=1) - counts
    sorted_group = jnp.take_along_axis(group, order, axis=1)
    place = jnp.arange(n) - jnp.take_along_axis(begins, sorted_group, axis=1)
    kept = jnp.zeros((b, n), bool).at[rows, order].set(place < jnp.take_along_axis(quotas, sorted_group, axis=1))
    places = jnp.sort(jnp.where(kept, jnp.arange(n), n), axis=1)[:, :size].astype(jnp.int32)
    places = jnp.pad(places, ((0, 0), (0, size - places.shape[1])), constant_values=n)
    return Kept(jnp.where(places < n, places, 0), places < n)


def gather_reference(
    x: Shaped[Array, "lead b n *rest"], indices: Int[Array, "b k"], valid: Shaped[Array, "b k"]
) -> Shaped[Array, "lead b k *rest"]:
    """Rows `indices[b]` of `x[:, b]`, zeros where not valid; bits stay as they are."""
    bits = as_bits(x)
    shape = (1, *indices.shape, *(1,) * (x.ndim - 3))
    rows = jnp.take_along_axis(bits, indices.reshape(shape), axis=2)
    return from_bits(jnp.where(valid.reshape(shape), rows, jnp.zeros((), bits.dtype)), x.dtype)


def as_bits(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Floats as unsigned integers: a float that is converted on the way could lose what its NaN says."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))


def from_bits(bits: Shaped[Array, "*shape"], dtype) -> Shaped[Array, "*shape"]:
    """`as_bits` taken back."""
    return jax.lax.bitcast_convert_type(bits, dtype) if bits.dtype != dtype else bits
