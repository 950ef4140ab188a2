"""Token selection: scoring the tokens of the reference images, selecting the best and gathering them.

MACRO's text-aligned selection (arXiv 2603.25319; no code of it was released) in three steps: `attention_received` says
how much text and other images attend to each token of an image, `select_top_k` takes the best of every image under
`token_budgets`, `gather_tokens` takes their keys, values or embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int

from macro.kernels.attention.api import attention_with_lse, check_inputs
from macro.kernels.attention.reference import MASK_VALUE
from macro.kernels.token_selection.budgets import token_budget_bound, token_budgets
from macro.parallel.sharding import check_axes, constrain
from macro.sentence.attention_mask import MASK_FIELDS, mask_mod

__all__ = [
    "MOST_IMAGES",
    "TEXT",
    "TopK",
    "attention_received",
    "gather_tokens",
    "query_counts",
    "select_top_k",
    "token_budget_bound",
    "token_budgets",
]

MOST_IMAGES = 47  # of a packed sequence: one channel of a head for each, and one for text
TEXT = -1  # the image number of a token of no image
_COUNTED = 128  # keys of a block, counted against all queries


class TopK(NamedTuple):
    """The kept tokens of each packed sequence, in rising order, valid entries first.

    Attributes:
        indices: int32 `[b, k]` token indices; 0 where not valid.
        valid: bool `[b, k]` whether the entry is a kept token.
    """

    indices: Array
    valid: Array


def attention_received(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    lse: Float[Array, "b nq h"],
    q_meta: Mapping,
    k_meta: Mapping,
    q_image: Int[Array, "b nq"],
    k_image: Int[Array, "b nk"],
    k_bias: Float[Array, "b nk"] | None = None,
) -> Float[Array, "b 2 nk"]:
    """How much attention each token of an image gets from text, and from other images.

        A[t, u] = mean over heads of exp(q_t . k_u / sqrt(d) + bias[u] - lse[t])     where t sees u, else 0
        received[0, u] = sum of A[t, u] over text t,    received[1, u] = sum of A[t, u] over t in other images than u's

    These sums are a gradient of attention, dv[u] = sum_t A[t, u] do[t], where do[t] is one-hot in the channel of t's
    image; so they can be computed by every attention backend and on every mesh.

    Args:
        q, k: queries and keys as attention takes them; h a multiple of kv.
        lse: float32 log-sum-exp of each query over all keys that it sees (`attention_with_lse`), which may be more keys
            than these. A query without visible keys adds 0.
        q_meta, k_meta: `segment_ids`, `token_index`, `block_id`, `mask_mode`, int32 `[b, nq]` and `[b, nk]`.
        q_image: image number of each query, below `MOST_IMAGES`; -1 for text, below -1 for queries not counted.
        k_image: the same for keys, negative for text.
        k_bias: added to every score of a key, as in attention.

    Returns:
        float32; both rows are zero for keys in text. No gradient flows through it.

    Raises:
        ValueError: at trace time, incompatible shapes, or an image number that is known to be too large.
    """
    _check_scoring(q, k, lse, q_meta, k_meta, q_image, k_image, k_bias)
    given = jax.lax.stop_gradient((q, k, lse, q_meta, k_meta, k_bias))
    q, k, lse, q_meta, k_meta, k_bias = given
    # Pairs that are not counted are not visited. The weights stay right, as `lse` is over all keys.
    q_meta = dict(q_meta) | {"segment_ids": jnp.where(q_image >= TEXT, q_meta["segment_ids"], -1)}
    k_meta = dict(k_meta) | {"segment_ids": jnp.where(k_image > TEXT, k_meta["segment_ids"], -1)}
    d = max(q.shape[-1], MOST_IMAGES + 1)
    q, k = (_widened(x, d) for x in (q * (d / q.shape[-1]) ** 0.5, k))
    values = jnp.zeros_like(k)
    (attended, lse_here), gradient = jax.vjp(lambda v: attention_with_lse(q, k, v, q_meta, k_meta, k_bias), values)
    # exp(score - lse) = exp(score - lse_here) exp(lse_here - lse)
    share = jnp.where((lse_here > MASK_VALUE) & (lse > MASK_VALUE), jnp.exp(lse_here - lse), 0.0)
    channels = jax.nn.one_hot(q_image - TEXT, d)[:, :, None]
    slopes = (share[..., None] * channels / q.shape[2]).astype(attended.dtype)
    [sums] = gradient((slopes, jnp.zeros_like(lse_here)))
    sums = jnp.sum(sums, axis=2, dtype=jnp.float32)
    own = jax.nn.one_hot(k_image - TEXT, d, dtype=bool)
    others = jnp.sum(jnp.where(own, 0, sums)[..., 1:], axis=-1)
    return jnp.where(k_image[:, None] > TEXT, jnp.stack([sums[..., 0], others], axis=1), 0.0)


def query_counts(
    q_meta: Mapping, k_meta: Mapping, q_image: Int[Array, "b nq"], k_image: Int[Array, "b nk"]
) -> Float[Array, "b 2 nk"]:
    """The number of queries `attention_received` sums over: text queries, and other images' queries, that see the key.

    Arguments and errors as there. Memory grows with nq + nk.
    """
    _check_images("query_counts", q_meta, k_meta, q_image, k_image)
    nk, image = k_image.shape[1], "image"
    keys = {name: k_meta[name] for name in MASK_FIELDS} | {image: k_image}
    keys = {name: jnp.pad(x, ((0, 0), (0, -nk % _COUNTED)), constant_values=-1) for name, x in keys.items()}
    blocks = {name: rearrange(x, "b (m n) -> m b 1 n", n=_COUNTED) for name, x in keys.items()}
    queries = {name: q_meta[name][:, :, None] for name in MASK_FIELDS}

    def count(block):
        seen, own = mask_mod(queries, block) & (block[image] > TEXT), q_image[:, :, None]
        counted = seen & (own == TEXT), seen & (own > TEXT) & (own != block[image])
        return jnp.stack([jnp.sum(x, axis=1, dtype=jnp.float32) for x in counted], axis=1)

    return rearrange(jax.lax.map(count, blocks), "m b c n -> b c (m n)")[..., :nk]


def select_top_k(scores: Float[Array, "b n"], image: Int[Array, "b n"], budgets: Int[Array, "b p"], size: int) -> TopK:
    """The `budgets[b, p]` tokens of each image with the highest scores.

    Args:
        scores: of equal ones the earlier token comes first; NaN is below everything.
        image: image number of each token, -1 (or a number without a column in `budgets`) where it cannot be kept.
        budgets: tokens to keep of each image; an image that has fewer keeps them all.
        size: k, static: `token_budget_bound` gives one that suffices. With a smaller one the last tokens are dropped.

    Returns:
        `[b, size]`: token indices in rising order, then entries that are not valid. No gradient flows through it.

    Raises:
        ValueError: incompatible shapes; a size below 1, or below budgets that are known when traced.
    """
    _check_top_k(scores, image, budgets, size)
    n, images = scores.shape[1], budgets.shape[1]
    # Tokens that cannot be kept form a last image with a budget of 0.
    group = jnp.where((image >= 0) & (image < images), image, images)
    budgets = jnp.pad(budgets, ((0, 0), (0, 1)))
    # The sort is stable and puts NaN last.
    order = jnp.lexsort((-jax.lax.stop_gradient(scores), group), axis=-1)
    counts = jnp.sum(group[:, :, None] == jnp.arange(images + 1), axis=1)
    begins = jnp.cumsum(counts, axis=1) - counts
    sorted_group = jnp.take_along_axis(group, order, axis=1)
    rank = jnp.arange(n) - jnp.take_along_axis(begins, sorted_group, axis=1)
    kept = rank < jnp.take_along_axis(budgets, sorted_group, axis=1)
    places = jnp.sort(jnp.where(kept, order, n), axis=1)[:, :size].astype(jnp.int32)
    places = jnp.pad(places, ((0, 0), (0, size - places.shape[1])), constant_values=n)
    return TopK(jnp.where(places < n, places, 0), places < n)


def gather_tokens(x: Array, kept: TopK, *axes: str | None) -> Array:
    """The kept tokens of `x`; zeros where `kept` is not valid.

        gather_tokens(embeddings, kept, "batch", "tokens", "width")                      [b, n, d] -> [b, k, d]
        gather_tokens(keys, kept, "layers", "batch", "tokens", "kv_heads", "head_dim")   a cache's keys or values

    Args:
        x: any array whose dimension of tokens directly follows that of the batch.
        kept: `[b, k]` of `select_top_k`.
        axes: the logical axis of each dimension of `x` (`macro/parallel/sharding.py`), with "tokens" to gather along.

    Returns:
        `x` with k instead of n tokens.

    Raises:
        ValueError: axes that do not describe `x`, or another batch size than that of `kept`, at trace time.
    """
    axis = _check_gather(x, kept, axes)
    shape = *(1,) * (axis - 1), *kept.indices.shape, *(1,) * (x.ndim - axis - 1)
    tokens = jnp.take_along_axis(x, kept.indices.reshape(shape), axis=axis)
    return constrain(jnp.where(kept.valid.reshape(shape), tokens, jnp.zeros((), x.dtype)), *axes)


def _widened(x: Array, d: int) -> Array:
    """Heads `[..., d]` zero-padded to a wider d, which changes no product."""
    return jnp.pad(x, (*[(0, 0)] * (x.ndim - 1), (0, d - x.shape[-1])))


def _check_scoring(q, k, lse, q_meta, k_meta, q_image, k_image, k_bias) -> None:
    """Raises ValueError for shapes that would otherwise broadcast silently or fail deep inside a kernel."""
    check_inputs("attention_received", q, k, k, q_meta, k_meta, k_bias)
    if lse.shape != q.shape[:3]:
        raise ValueError(f"attention_received: lse has shape {lse.shape}, but must have {q.shape[:3]}")
    _check_images("attention_received", q_meta, k_meta, q_image, k_image)
    if not isinstance(q_image, jax.core.Tracer):
        last = np.max(np.asarray(q_image), initial=0)
        if last >= MOST_IMAGES:
            raise ValueError(f"attention_received: q_image has {last}, but must be below {MOST_IMAGES}")


def _check_images(op: str, q_meta, k_meta, q_image, k_image) -> None:
    for side, meta, image in (("q", q_meta, q_image), ("k", k_meta, k_image)):
        if image.shape != meta["segment_ids"].shape:
            raise ValueError(f"{op}: {side}_image is {image.shape}, but its tokens are {meta['segment_ids'].shape}")


def _check_gather(x, kept: TopK, axes) -> int:
    """The index of the token dimension."""
    if len(axes) != x.ndim:
        raise ValueError(f"gather_tokens: {len(axes)} logical axes {axes} for an array of shape {x.shape}")
    check_axes(axes)
    if axes.count("tokens") != 1 or axes[: axes.index("tokens")][-1:] != ("batch",):
        raise ValueError(f'gather_tokens: "tokens" must stand once in {axes}, right behind "batch"')
    axis = axes.index("tokens")
    rows = x.shape[axis - 1]
    if kept.indices.ndim != 2 or kept.indices.shape[0] != rows or kept.valid.shape != kept.indices.shape:
        shapes = f"{kept.indices.shape}, {kept.valid.shape}"
        raise ValueError(f"gather_tokens: kept {shapes} must be [b, k] with x's {rows} rows")
    return axis


def _check_top_k(scores, image, budgets, size: int) -> None:
    if scores.ndim != 2 or scores.shape != image.shape:
        raise ValueError(f"select_top_k: scores {scores.shape} and image {image.shape} must both be [b, n]")
    if budgets.ndim != 2 or budgets.shape[0] != scores.shape[0]:
        raise ValueError(f"select_top_k: budgets {budgets.shape} must be [b, images] with {scores.shape[0]} rows")
    if size < 1:
        raise ValueError(f"select_top_k: size={size} keeps nothing")
    if any(isinstance(x, jax.core.Tracer) for x in (image, budgets)):
        return
    counts = np.sum(np.asarray(image)[:, None, :] == np.arange(budgets.shape[1])[:, None], axis=2)
    most = int(np.max(np.sum(np.minimum(counts, np.asarray(budgets)), axis=1), initial=0))
    if most > size:
        raise ValueError(f"select_top_k: size={size} is below the {most} tokens that the budgets of a row come to")
