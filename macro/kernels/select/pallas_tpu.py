"""Column sums of attention for TPU, in Pallas (Mosaic).

As the backward pass of attention for keys (`attention/pallas_tpu_kernels.py`): a list of the pairs of blocks that may
count for one another is handed to the kernel ahead of it (scalar prefetch), sorted by blocks of keys, and the grid
(row, key head, visit) walks along it. Scores are transposed, keys by queries, so that what belongs to a query lies
along lanes, and the sums of a block of keys stay in VMEM until all its queries have come. Weights of all heads of a
key head are added up first: the rule of sight and the pictures are then asked once for all. Memory grows with n.

Definition: `reference.column_sums_reference`. Rows are taken out in `pallas_tpu_gather.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from macro.kernels.attention.ordering import Visits, all_see, in_blocks, padded, stacked, visits
from macro.kernels.attention.pallas_tpu import arranged, blocks
from macro.kernels.attention.pallas_tpu_kernels import LANES
from macro.kernels.attention.reference import HIDDEN
from macro.kernels.select.pairs import NAMES, PICTURE, may_count, only_counted
from macro.kernels.select.reference import classes
from macro.sentence.sight import visible

# Blocks (of attention's sizes), scratch and scores take about 12 MB at BAGEL's sizes in bfloat16, and v5p has 64 MiB.
_VMEM_BYTES = 48 * 1024 * 1024


class _Case(NamedTuple):
    """Tokens of a block on either side, and (b, nq, h, nk, kv, d) as the caller gave them."""

    queries: int
    keys: int
    rectangle: tuple
    interpret: bool


def column_sums_tpu(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    log_sum: Float[Array, "b nq h"],
    q_meta: Mapping,
    k_meta: Mapping,
    q_picture: Int[Array, "b nq"],
    k_picture: Int[Array, "b nk"],
    k_bias: Float[Array, "b nk"] | None = None,
    interpret: bool = False,
) -> Float[Array, "b 2 nk"]:
    """Same values as `column_sums_reference`; arguments as in `api.column_sums`.

    What attention's kernel cannot run for the length of its lists in scalar memory, this one cannot either:
    `attention/pallas_tpu.py` says `why_not`.

    Args:
        interpret: run by Pallas' interpreter on any machine, for tests.
    """
    (b, nq, h, d), (nk, kv) = q.shape, k.shape[1:3]
    case = _Case(*blocks(nq, nk, h // kv), (b, nq, h, nk, kv, d), interpret)
    dtype = jnp.result_type(q, k)
    q_meta, k_meta = only_counted(log_sum, q_meta, k_meta, q_picture, k_picture)
    q_fields, k_fields = stacked(q_meta, case.queries, NAMES), stacked(k_meta, case.keys, NAMES)
    sides = in_blocks(q_fields, case.queries, NAMES), in_blocks(k_fields, case.keys, NAMES)
    pairs, whole = may_count(*sides), all_see(*sides)
    bias = jnp.zeros((b, nk)) if k_bias is None else k_bias.astype(jnp.float32)
    # Who sees nothing has weights of zero by an infinite log-sum-exp.
    log_sum = rearrange(jnp.where(log_sum > HIDDEN, log_sum, jnp.inf), "b n (g r) -> b g r n", g=kv)
    sums = _call(
        case,
        visits(pairs.swapaxes(1, 2), whole.swapaxes(1, 2)),
        q_fields,
        k_fields.swapaxes(1, 2),
        padded(bias, 1, case.keys)[..., None],
        arranged(q.astype(dtype) * d**-0.5, case.queries),
        arranged(k.astype(dtype), case.keys),
        padded(log_sum, 3, case.queries),
    )
    return jnp.sum(sums, axis=1)[..., :nk] / h


def _call(case: _Case, whom: Visits, *arrays: Array) -> Array:
    """Sums `[b, kv, 2, nk]` over queries and the query heads of each key head."""
    b, nq, h, nk, kv, d = case.rectangle
    q_fields, k_fields, *_, k, _ = arrays
    group, width, names, padded = h // kv, k.shape[3], len(NAMES), k.shape[2]

    def of_queries(shape, place):
        def index(row, head, step, outer, inner, whole, counts):
            return place(row, head, jnp.maximum(inner[row, step], 0))

        return pl.BlockSpec(shape, index)

    def of_keys(shape, place):
        return pl.BlockSpec(shape, lambda row, head, step, outer, *_: place(row, head, outer[row, step]))

    specs = [
        of_queries((None, names, case.queries), lambda row, head, at: (row, 0, at)),
        of_keys((None, case.keys, names), lambda row, head, at: (row, at, 0)),
        of_keys((None, case.keys, 1), lambda row, head, at: (row, at, 0)),
        of_queries((None, group, case.queries, width), lambda row, head, at: (row, head, at, 0)),
        of_keys((None, None, case.keys, width), lambda row, head, at: (row, head, at, 0)),
        of_queries((None, None, group, case.queries), lambda row, head, at: (row, head, 0, at)),
    ]
    out = jax.ShapeDtypeStruct((b, kv, 2, padded), jnp.float32)
    # Where all pairs of blocks meet, queries are read once for each block of keys; which do depends on the data.
    reads = (padded // case.keys, 1, 1, padded // case.keys, 1, padded // case.keys)
    moved = sum(times * x.size * x.dtype.itemsize for times, x in zip(reads, arrays, strict=True))
    call = pl.pallas_call(
        _kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(whom),
            grid=(b, kv, jnp.max(whom.counts)),
            in_specs=specs,
            out_specs=of_keys((None, None, 2, case.keys), lambda row, head, at: (row, head, 0, at)),
            scratch_shapes=[pltpu.VMEM((2, case.keys, LANES), jnp.float32),
                            pltpu.VMEM((case.keys, case.queries), jnp.float32)],
        ),
        out_shape=out,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=_VMEM_BYTES
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * b * h * nq * nk * d,
            bytes_accessed=moved + math.prod(out.shape) * out.dtype.itemsize,
            transcendentals=b * h * nq * nk,
        ),
        interpret=case.interpret,
        name="macro_select_scores",
    )  # fmt: skip
    return call(*whom, *arrays)


def _kernel(outer, inner, whole, counts, q_fields, k_fields, k_bias, q, k, log_sum, sums, lanes, weights):
    row, step = pl.program_id(0), pl.program_id(2)
    here, count = outer[row, step], counts[row]
    begins = (step == 0) | (outer[row, jnp.maximum(step - 1, 0)] != here)
    # Entries that do not count repeat the last one, so that no block changes after it.
    ends = (step == count - 1) | (outer[row, jnp.minimum(step + 1, outer.shape[1] - 1)] != here)
    meets = (step < count) & (inner[row, step] >= 0)
    queries = {name: q_fields[i : i + 1, :] for i, name in enumerate(NAMES)}
    keys = {name: k_fields[:, i : i + 1] for i, name in enumerate(NAMES)}

    @pl.when(begins)
    def _():
        lanes[...] = jnp.zeros(lanes.shape)

    @pl.when(meets)
    def _():
        weights[...] = jnp.zeros(weights.shape)

        @pl.loop(0, q.shape[0])
        def _(head):
            scores = lax.dot_general(k[...], q[head], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
            weights[...] += jnp.exp(scores + k_bias[...] - log_sum[pl.ds(head, 1), :])

        def add(counted):
            # A hidden weight may be infinite: it is left out, not multiplied by zero.
            for i, where in enumerate(counted):
                lanes[i] += _folded(jnp.where(where, weights[...], 0.0))

        @pl.when(whole[row, step] == 1)
        def _():
            add(classes(queries[PICTURE], keys[PICTURE]))

        @pl.when(whole[row, step] == 0)
        def _():
            sight = visible(queries, keys)
            add([sight & x for x in classes(queries[PICTURE], keys[PICTURE])])

    @pl.when(ends)
    def _():
        for i in range(2):
            total = jnp.sum(lanes[i], axis=1, keepdims=True)
            sums[i : i + 1, :] = jnp.broadcast_to(total, lanes.shape[1:]).T[:1]


def _folded(x: Array) -> Array:
    """Sums of `x [m, n]` over every 128th column, `[m, LANES]`; fewer columns are padded with zeros."""
    m, n = x.shape
    if n % LANES:
        return jnp.pad(jnp.sum(x, axis=1, keepdims=True), ((0, 0), (0, LANES - 1)))
    return sum(x[:, at : at + LANES] for at in range(0, n, LANES))
