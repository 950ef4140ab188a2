"""Column sums of attention, and rows taken out of an array, for GPU in Pallas' Triton backend.

One program owns a block of keys of one key head. It loops over the blocks of queries that may count for it (a list made
ahead, `pairs.py`), adds up the weights of all query heads of its key head, and asks the rule of sight and the pictures
once for all of them. Scores are kept times log2(e), so that weights are powers of two, which is what the hardware
computes. Rows are loaded by their indices, a block of places and a slice of the row's width at a time.

Never run on a GPU so far: checked by Pallas' interpreter and by lowering to Triton's IR. Block sizes are reckoned from
shared memory and registers, not measured.

Definition: `reference.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Bool, Float, Int, Shaped

from macro.kernels.attention.ordering import in_blocks, padded, stacked
from macro.kernels.attention.pallas_gpu import arranged, blocks, power, why_not_here
from macro.kernels.attention.reference import HIDDEN
from macro.kernels.select.pairs import NAMES, PICTURE, may_count, only_counted
from macro.kernels.select.reference import as_bits, classes, from_bits
from macro.sentence.sight import visible

# Tokens of a block: with heads of 128 in bfloat16 32 KB of keys stay, and 16 KB of queries are loaded for each product.
QUERIES, KEYS = 64, 128
# Rows and columns of a block that is moved: 16 KB of 16-bit numbers, spread over four warps.
ROWS, COLUMNS = 32, 256
_LOG2_E = math.log2(math.e)


def column_sums_gpu(
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

    It runs what attention's kernel does, of which `attention/pallas_gpu.py` says `why_not`.
    Products of float32 are float32's own and not TF32's.

    Args:
        interpret: run by Pallas' interpreter on any machine, for tests.
    """
    (nq, h, d), nk = q.shape[1:], k.shape[1]
    dtype = jnp.result_type(q, k)
    # Wide heads of 32 bits: smaller blocks, so that they still fit.
    queries, keys = blocks((QUERIES, KEYS), (nq, nk), max(1, power(d) * dtype.itemsize // 256))
    q_meta, k_meta = only_counted(log_sum, q_meta, k_meta, q_picture, k_picture)
    q_fields, k_fields = stacked(q_meta, queries, NAMES), stacked(k_meta, keys, NAMES)
    pairs = may_count(in_blocks(q_fields, queries, NAMES), in_blocks(k_fields, keys, NAMES))
    bias = jnp.zeros(k_picture.shape) if k_bias is None else k_bias.astype(jnp.float32)
    # Who sees nothing has weights of zero by an infinite log-sum-exp.
    log_sum = jnp.where(log_sum > HIDDEN, log_sum, jnp.inf).swapaxes(1, 2)
    sums = _call(
        (queries, keys, d),
        _lists(pairs.swapaxes(1, 2)),
        [q_fields, k_fields, padded(bias, 1, keys), arranged(q.astype(dtype), queries),
         arranged(k.astype(dtype), keys), padded(log_sum, 2, queries)],
        interpret,
    )  # fmt: skip
    return jnp.sum(sums, axis=1)[..., :nk] / h


def _lists(pairs: Bool[Array, "b m n"]) -> tuple[Array, Array]:
    """For each block of keys the blocks of queries that it meets, `[b, m, n]`, and how many, `[b, m, 1]`."""
    n = pairs.shape[2]
    met = jnp.sort(jnp.where(pairs, jnp.arange(n), n), axis=-1)
    return (met % n).astype(jnp.int32), jnp.sum(pairs, axis=-1, keepdims=True, dtype=jnp.int32)


def _call(case: tuple[int, int, int], whom: tuple[Array, Array], arrays: list[Array], interpret: bool) -> Array:
    """Sums `[b, kv, 2, nk]` over queries and the query heads of each key head.

    Args:
        case: queries and keys of a block, and the width that a head has without padding.
    """
    (queries, keys, d), (*_, q, k, _) = case, arrays
    (b, nq, h, width), (nk, kv) = q.shape, k.shape[1:3]
    group = h // kv

    def spec(shape, place):
        return pl.BlockSpec(shape, lambda at, head, row: place(row, head, at))

    out = jax.ShapeDtypeStruct((b, kv, 2, nk), jnp.float32)
    moved = sum(x.size * x.dtype.itemsize for x in (*arrays, out))
    return pl.pallas_call(
        functools.partial(_kernel, queries, d**-0.5 * _LOG2_E),
        grid=(nk // keys, kv, b),
        in_specs=[
            spec((None, None, whom[0].shape[2]), lambda row, head, at: (row, at, 0)),
            spec((None, None, 1), lambda row, head, at: (row, at, 0)),
            spec((None, len(NAMES), nq), lambda row, head, at: (row, 0, 0)),
            spec((None, len(NAMES), keys), lambda row, head, at: (row, 0, at)),
            spec((None, keys), lambda row, head, at: (row, at)),
            spec((None, nq, group, width), lambda row, head, at: (row, 0, head, 0)),
            spec((None, keys, None, width), lambda row, head, at: (row, at, head, 0)),
            spec((None, group, nq), lambda row, head, at: (row, head, 0)),
        ],
        out_specs=spec((None, None, 2, keys), lambda row, head, at: (row, head, 0, at)),
        out_shape=out,
        compiler_params=plgpu.CompilerParams(num_warps=8, num_stages=2),
        cost_estimate=pl.CostEstimate(
            flops=2 * b * h * nq * nk * d, bytes_accessed=moved, transcendentals=b * h * nq * nk
        ),
        interpret=interpret,
        name="macro_select_scores",
    )(*whom, *arrays)


def _kernel(queries: int, scale: float, others, count, q_fields, k_fields, k_bias, q, k, log_sum, sums):
    of_keys, bias = k[...], k_bias[...][None, :] * _LOG2_E
    seen = {name: k_fields[i, pl.ds(0, k.shape[0])][None, :] for i, name in enumerate(NAMES)}

    def step(turn, totals):
        at = pl.ds(others[turn] * queries, queries)
        seers = {name: q_fields[i, at][:, None] for i, name in enumerate(NAMES)}

        def add(head, weights):
            scores = lax.dot_general(
                q[at, head, :], of_keys, (((1,), (1,)), ((), ())), lax.Precision.HIGHEST, jnp.float32
            )
            return weights + jnp.exp2(scores * scale + bias - log_sum[head, at][:, None] * _LOG2_E)

        weights = lax.fori_loop(0, q.shape[1], add, jnp.zeros((queries, k.shape[0])))
        sight = visible(seers, seen)
        # A hidden weight may be infinite: it is left out, not multiplied by zero.
        counted = classes(seers[PICTURE], seen[PICTURE])
        new = (jnp.sum(jnp.where(sight & x, weights, 0.0), axis=0) for x in counted)
        return tuple(total + x for total, x in zip(totals, new, strict=True))

    start = jnp.zeros(k.shape[0]), jnp.zeros(k.shape[0])
    for i, total in enumerate(lax.fori_loop(0, count[0], step, start)):
        sums[i, pl.ds(0, k.shape[0])] = total


def why_not_gather(x: Shaped[Array, "lead b n *rest"], indices: Int[Array, "b k"]) -> str | None:
    """Why `gather_gpu` cannot take such rows on the devices that are here, or None."""
    if not any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.integer, jnp.floating)) or x.dtype.itemsize > 4:
        return f"{x.dtype} is no integer or float of at most 32 bits"
    return why_not_here()


def gather_gpu(
    x: Shaped[Array, "lead b n *rest"], indices: Int[Array, "b k"], valid: Bool[Array, "b k"], interpret: bool = False
) -> Shaped[Array, "lead b k *rest"]:
    """Same values as `gather_reference`; arguments as there.

    Args:
        interpret: run by Pallas' interpreter on any machine, for tests.
    """
    bits = as_bits(x)
    flat = rearrange(bits.reshape(*x.shape[:3], -1), "lead b n w -> (lead b) n w")
    lead, k, width = x.shape[0], indices.shape[1], flat.shape[2]
    # A place that is not valid has no row.
    places = padded(jnp.where(valid, indices, -1).astype(jnp.int32), 1, ROWS, -1)
    b, whole = places.shape
    columns = min(COLUMNS, power(width))
    out = jax.ShapeDtypeStruct((lead * b, whole, width), flat.dtype)
    taken = pl.pallas_call(
        functools.partial(_gather_kernel, columns),
        grid=(whole // ROWS, pl.cdiv(width, columns), lead * b),
        in_specs=[
            pl.BlockSpec((None, ROWS), lambda at, column, row: (lax.rem(row, b), at)),
            pl.BlockSpec((None, *flat.shape[1:]), lambda at, column, row: (row, 0, 0)),
        ],
        out_specs=pl.BlockSpec((None, ROWS, width), lambda at, column, row: (row, at, 0)),
        out_shape=out,
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        cost_estimate=pl.CostEstimate(flops=0, bytes_accessed=2 * out.size * out.dtype.itemsize, transcendentals=0),
        interpret=interpret,
        name="macro_select_gather",
    )(places, flat)
    return from_bits(taken[:, :k].reshape(lead, b, k, *x.shape[3:]), x.dtype)


def _gather_kernel(columns: int, places, x, out):
    rows = places[...]
    across = pl.program_id(1) * columns + jnp.arange(columns)
    inside = (across < out.shape[1])[None, :]
    taken = plgpu.load(
        x.at[jnp.maximum(rows, 0)[:, None], across[None, :]], mask=inside & (rows >= 0)[:, None], other=0
    )
    place = jnp.arange(rows.shape[0])
    plgpu.store(out.at[place[:, None], across[None, :]], taken, mask=jnp.broadcast_to(inside, taken.shape))
