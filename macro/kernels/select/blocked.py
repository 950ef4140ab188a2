"""Column sums of attention on a CPU in blocks that a core's cache holds, and counts of who sees whom on any machine.

Sorted by (sample, order), each block of keys is seen by one contiguous run of query blocks, whose ends follow from the
metadata. Memory grows with n.

Definition: `reference.py`. Measured: `experiments/bench_select.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jaxtyping import Array, Float, Int

from macro.kernels.attention.ordering import block_at, blocks_in_order, sorting
from macro.kernels.attention.reference import HIDDEN
from macro.kernels.select.pairs import PICTURE, may_count, only_counted
from macro.kernels.select.reference import classes
from macro.sentence.sight import FIELDS, visible

QUERIES, KEYS = 128, 128  # tokens of a block
COUNTED = 128  # keys of a block that is counted against all queries
_BIAS = "bias"  # of keys, beside their metadata


def column_sums_blocked(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    log_sum: Float[Array, "b nq h"],
    q_meta: Mapping,
    k_meta: Mapping,
    q_picture: Int[Array, "b nq"],
    k_picture: Int[Array, "b nk"],
    k_bias: Float[Array, "b nk"] | None = None,
) -> Float[Array, "b 2 nk"]:
    """Same values as `column_sums_reference`; arguments as in `api.column_sums`."""
    groups, nk = k.shape[2], k.shape[1]
    q, k, log_sum = (x.astype(jnp.float32) for x in (q * q.shape[-1] ** -0.5, k, log_sum))
    q_meta, k_meta = only_counted(log_sum, q_meta, k_meta, q_picture, k_picture)
    log_sum = jnp.where(log_sum > HIDDEN, log_sum, jnp.inf)
    q_order, k_order = sorting(q_meta), sorting(k_meta)
    bias = jnp.zeros(k_picture.shape) if k_bias is None else k_bias
    queries = blocks_in_order(q, q_order, QUERIES), blocks_in_order(log_sum, q_order, QUERIES)
    queries = (
        rearrange(queries[0], "b m n (g r) d -> b m g (r n) d", g=groups),
        rearrange(queries[1], "b m n (g r) -> b m g (r n)", g=groups),
    )
    keys = rearrange(blocks_in_order(k, k_order, KEYS), "b m n g d -> b m g n d")
    q_meta = {name: blocks_in_order(x, q_order, QUERIES) for name, x in q_meta.items()}
    k_meta = {name: blocks_in_order(x, k_order, KEYS) for name, x in (k_meta | {_BIAS: bias}).items()}
    sums = lax.map(lambda row: _row(*row), (*queries, q_meta, keys, k_meta))
    sums = rearrange(sums, "b m c n -> b c (m n)")[..., :nk] / log_sum.shape[2]
    return jnp.take_along_axis(sums, jnp.argsort(k_order, axis=1)[:, None], axis=2)


def _row(queries: Array, log_sum: Array, q_meta: dict, keys: Array, k_meta: dict) -> Array:
    """Sums over queries and heads for one row, `[m, 2, KEYS]`."""
    pairs = may_count(*({name: x[None] for name, x in meta.items()} for meta in (q_meta, k_meta)))[0]
    numbers = jnp.arange(pairs.shape[0])[:, None]
    first = jnp.min(jnp.where(pairs, numbers, pairs.shape[0]), axis=0)
    end = jnp.max(jnp.where(pairs, numbers + 1, 0), axis=0)

    def block(arguments):
        k, meta, first, end = arguments
        k_fields = {name: x[None, :] for name, x in meta.items()}

        def step(number, sums):
            q, log_sums, fields = block_at((queries, log_sum, q_meta), number)
            scores = jnp.einsum("gqd,gkd->gqk", q, k) + k_fields[_BIAS] - log_sums[..., None]
            weights = jnp.sum(jnp.exp(scores).reshape(-1, QUERIES, KEYS), axis=0)
            q_fields = {name: x[:, None] for name, x in fields.items()}
            sight = visible(q_fields, k_fields)
            # A hidden weight may be infinite: it is left out, not multiplied by zero.
            counted = [jnp.where(sight & c, weights, 0.0) for c in classes(q_fields[PICTURE], k_fields[PICTURE])]
            return sums + jnp.stack([jnp.sum(x, axis=0) for x in counted])

        return lax.fori_loop(first, end, step, jnp.zeros((2, KEYS)))

    return lax.map(block, (keys, k_meta, first, end))


def column_counts_blocked(
    q_meta: Mapping, k_meta: Mapping, q_picture: Int[Array, "b nq"], k_picture: Int[Array, "b nk"]
) -> Float[Array, "b 2 nk"]:
    """Same values as `column_counts_reference`, a block of keys at a time."""
    nk = k_picture.shape[1]
    keys = {name: k_meta[name] for name in FIELDS} | {PICTURE: k_picture}
    keys = {name: jnp.pad(x, ((0, 0), (0, -nk % COUNTED)), constant_values=-1) for name, x in keys.items()}
    blocks = {name: rearrange(x, "b (m n) -> m b 1 n", n=COUNTED) for name, x in keys.items()}
    queries = {name: q_meta[name][:, :, None] for name in FIELDS}

    def count(block):
        sight = visible(queries, block)
        counted = classes(q_picture[:, :, None], block[PICTURE])
        return jnp.stack([jnp.sum(sight & x, axis=1, dtype=jnp.float32) for x in counted], axis=1)

    return rearrange(lax.map(count, blocks), "m b c n -> b c (m n)")[..., :nk]
