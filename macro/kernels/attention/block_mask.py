"""The block mask: which pairs of blocks of queries and keys a kernel has to visit, and which of them are full.

The attention mask is defined per token, in any order. But blocks of neighbouring tokens of a sentence see few other
blocks. These are found from the minima and maxima of each block, without comparing pairs of tokens; a superfluous visit
costs time, never correctness. In a full block every query sees every key; a partial one is masked pair by pair.
In the literature: FlexAttention's `BlockMask`, splash attention's `MaskInfo`.
Read next: `blocked.py` (CPU), `pallas_tpu.py`, `pallas_gpu.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from macro.sentence.attention_mask import CAUSAL, MASK_FIELDS, NOISE

_LAST, _FIRST = jnp.iinfo(jnp.int32).max, jnp.iinfo(jnp.int32).min


def sort_order(meta: Mapping) -> Int[Array, "b n"]:
    """The permutation of each row's tokens that makes sentences contiguous, with padding last."""
    sample = jnp.where(meta["segment_ids"] < 0, _LAST, meta["segment_ids"])
    return jnp.lexsort((meta["token_index"], sample), axis=-1)


def balanced_block_size(n: int, most: int, unit: int) -> int:
    """The block size for n tokens, a multiple of `unit` and at most `most`, that gives the fewest blocks."""
    unit = min(unit, most)
    count = -(-n // (most - most % unit))
    return -(-n // (count * unit)) * unit


def pad_to_multiple(x: Array, axis: int, block: int, value: int = 0) -> Array:
    """`x` with an axis padded to whole blocks."""
    widths = [(0, -x.shape[axis] % block if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value)


def sorted_blocks(x: Array, order: Int[Array, "b n"], block: int) -> Array:
    """`x [b, n, ...]` in the given order as `[b, m, block, ...]`; padding is -1 in integers and 0 in floats."""
    x = jnp.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), axis=1)
    x = pad_to_multiple(x, 1, block, -1 if jnp.issubdtype(x.dtype, jnp.integer) else 0)
    return x.reshape(x.shape[0], -1, block, *x.shape[2:])


def block_at(tree, number: Array):
    """One block of each array."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, number, keepdims=False), tree)


def stack_fields(meta: Mapping, block: int) -> Int[Array, "b fields n"]:
    """Metadata `[b, n]` by field as one array, padded to whole blocks with padding tokens (-1)."""
    return pad_to_multiple(jnp.stack([meta[name] for name in MASK_FIELDS], axis=1), 2, block, -1)


def visible_block_pairs(
    q_fields: Int[Array, "b fields nq"], k_fields: Int[Array, "b fields nk"], queries: int, keys: int
) -> tuple[Bool[Array, "b m n"], Bool[Array, "b m n"]]:
    """(any, full): which blocks of `queries` tokens may see a key of which blocks of `keys` tokens, or surely all."""

    def split(fields, block):
        return {name: fields[:, i].reshape(len(fields), -1, block) for i, name in enumerate(MASK_FIELDS)}

    sides = split(q_fields, queries), split(k_fields, keys)
    return any_visible(*sides), all_visible(*sides)


class BlockMask(NamedTuple):
    """The pairs of blocks that a kernel visits, a list per packed sequence, sorted by `outer`; int32.

    Attributes:
        outer: `[b, s]` number of the block on the first axis; every block occurs.
        inner: `[b, s]` number of the block on the second, -1: this outer block has no block to visit.
        full: `[b, s]` 1 where every query of the pair sees every key.
        counts: `[b]` number of valid entries; those after them repeat the last one.
    """

    outer: Array
    inner: Array
    full: Array
    counts: Array


def _range(x: Array, chosen: Array) -> tuple[Array, Array]:
    """Minimum and maximum of the selected entries in each block; a range that meets no other where there are none."""
    return jnp.min(jnp.where(chosen, x, _LAST), axis=-1), jnp.max(jnp.where(chosen, x, _FIRST), axis=-1)


def _overlap(q: tuple[Array, Array], k: tuple[Array, Array]) -> Array:
    """Whether ranges `[b, m]` and `[b, n]` overlap: `[b, m, n]`."""
    return (q[0][:, :, None] <= k[1][:, None, :]) & (k[0][:, None, :] <= q[1][:, :, None])


def any_visible(q_meta: Mapping, k_meta: Mapping) -> Bool[Array, "b m n"]:
    """Which blocks of queries `[b, m, tokens]` may see any key of which blocks of keys `[b, n, tokens]`.

    A key is visible if it comes earlier and is not noise, or if it is in the same span and is not text. In either
    case a pair of blocks is left out only where the ranges of their samples, orders or spans do not overlap.
    """
    q_samples = _range(q_meta["segment_ids"], q_meta["segment_ids"] >= 0)
    last_sample = q_meta["segment_ids"] == q_samples[1][..., None]
    last_order = _range(q_meta["token_index"], last_sample)[1]

    open_keys = (k_meta["segment_ids"] >= 0) & (k_meta["mask_mode"] != NOISE)
    open_samples = _range(k_meta["segment_ids"], open_keys)
    first_sample = open_keys & (k_meta["segment_ids"] == open_samples[0][..., None])
    first_order = _range(k_meta["token_index"], first_sample)[0]
    # Where the query block ends with the sample that the key block begins with, they share only that one.
    ends, begins = q_samples[1][:, :, None], open_samples[0][:, None, :]
    reached = (ends > begins) | (last_order[:, :, None] >= first_order[:, None, :])
    earlier = _overlap(q_samples, open_samples) & reached

    near_keys = (k_meta["segment_ids"] >= 0) & (k_meta["mask_mode"] != CAUSAL)
    q_spans = _range(q_meta["block_id"], q_meta["segment_ids"] >= 0)
    near_samples, near_spans = (_range(k_meta[name], near_keys) for name in ("segment_ids", "block_id"))
    return earlier | (_overlap(q_samples, near_samples) & _overlap(q_spans, near_spans))


def _only(x: Array) -> Array:
    """The single value of a block, -1 where there are several."""
    low, high = jnp.min(x, axis=-1), jnp.max(x, axis=-1)
    return jnp.where(low == high, low, -1)


def all_visible(q_meta: Mapping, k_meta: Mapping) -> Bool[Array, "b m n"]:
    """Pairs of blocks, as in `any_visible`, in which surely every query sees every key."""

    def same(name):
        q, k = _only(q_meta[name])[:, :, None], _only(k_meta[name])[:, None, :]
        return (q == k) & (k >= 0)

    noisy, textual = (jnp.any(k_meta["mask_mode"] == mode, axis=-1)[:, None, :] for mode in (NOISE, CAUSAL))
    later = jnp.min(q_meta["token_index"], axis=-1)[:, :, None] >= jnp.max(k_meta["token_index"], axis=-1)[:, None, :]
    return same("segment_ids") & ((later & ~noisy) | (same("block_id") & ~textual))


def block_mask(pairs: Bool[Array, "b m n"], full: Bool[Array, "b m n"]) -> BlockMask:
    """The visible pairs of blocks as a list, in the order of the first axis."""
    b, m, n = pairs.shape
    # An extra block on the second axis means no visit.
    alone = ~jnp.any(pairs, axis=-1, keepdims=True)
    wanted = jnp.concatenate([alone, pairs], axis=-1).reshape(b, m * (n + 1))
    so_far = jnp.cumsum(wanted, axis=-1, dtype=jnp.int32)
    counts = so_far[:, -1]
    # Entry j is the position where the running count exceeds j. A sort would take long to compile.
    last = jnp.minimum(jnp.arange(m * n), counts[:, None] - 1)
    places = jnp.sum(so_far[:, None, :] <= last[:, :, None], axis=-1, dtype=jnp.int32)
    outer, inner = places // (n + 1), places % (n + 1) - 1
    flags = jnp.take_along_axis(full.reshape(b, m * n), outer * n + jnp.maximum(inner, 0), axis=-1)
    return BlockMask(outer, inner, flags.astype(jnp.int32), counts)
