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

from macro.kernels.attention.reference import HIDDEN
from macro.kernels.select.blocked import column_sums_blocked
from macro.kernels.select.pairs import PICTURE, may_count, only_counted
from macro.kernels.select.reference import as_bits, classes, from_bits, gather_reference
from macro.sentence.sight import FIELDS, visible

# Tokens of a block: with heads of 128 in bfloat16 32 KB of keys stay, and 16 KB of queries are loaded for each product.
QUERIES, KEYS = 64, 128
# Rows and columns of a block that is moved: 16 KB of 16-bit numbers, spread over four warps.
ROWS, COLUMNS = 32, 256
_LEAST, _MOST = 16, 256  # tokens or values along each side of a product of Triton's
_NAMES = (*FIELDS, PICTURE)
_DTYPES = ("float32", "bfloat16", "float16")
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

    Heads of more than 256 values and other numbers than 16- and 32-bit floats go through `column_sums_blocked`.
    Products of float32 are float32's own and not TF32's.

    Args:
        interpret: run by Pallas' interpreter on any machine, for tests.
    """
    nk, (h, d) = k.shape[1], q.shape[2:]
    dtype = jnp.result_type(q, k)
    if d > _MOST or dtype.name not in _DTYPES:
        return column_sums_blocked(q, k, log_sum, q_meta, k_meta, q_picture, k_picture, k_bias)
    # Wide heads of 32 bits: smaller blocks, so that they still fit.
    shrink = max(1, _power(d) * dtype.itemsize // 256)
    queries, keys = (max(_LEAST, min(x // shrink, _power(n))) for x, n in ((QUERIES, q.shape[1]), (KEYS, nk)))
    q_meta, k_meta = only_counted(log_sum, q_meta, k_meta, q_picture, k_picture)
    q_fields, k_fields = _stacked(q_meta, queries), _stacked(k_meta, keys)
    bias = jnp.zeros(k_picture.shape) if k_bias is None else k_bias.astype(jnp.float32)
    # Who sees nothing has weights of zero by an infinite log-sum-exp.
    log_sum = jnp.where(log_sum > HIDDEN, log_sum, jnp.inf).swapaxes(1, 2)
    wide = [_padded(x.astype(dtype), 3, _power(d)) for x in (q, k)]
    sums = _call(
        (queries, keys, d),
        _lists(may_count(_in_blocks(q_fields, queries), _in_blocks(k_fields, keys)).swapaxes(1, 2)),
        [q_fields, k_fields, _padded(bias, 1, keys), _padded(wide[0], 1, queries), _padded(wide[1], 1, keys),
         _padded(log_sum, 2, queries)],
        interpret,
    )  # fmt: skip
    return jnp.sum(sums, axis=1)[..., :nk] / h


def _power(n: int) -> int:
    """The least power of two that is not below `n`, nor below what Triton takes."""
    return max(_LEAST, 1 << (n - 1).bit_length())


def _padded(x: Array, axis: int, block: int, value: int = 0) -> Array:
    widths = [(0, -x.shape[axis] % block if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value)


def _stacked(meta: Mapping, block: int) -> Array:
    """Metadata and pictures `[b, names, n]`, padded to whole blocks with nobody."""
    return _padded(jnp.stack([meta[name] for name in _NAMES], axis=1), 2, block, -1)


def _in_blocks(fields: Array, block: int) -> dict:
    return {name: fields[:, i].reshape(fields.shape[0], -1, block) for i, name in enumerate(_NAMES)}


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
            spec((None, len(_NAMES), nq), lambda row, head, at: (row, 0, 0)),
            spec((None, len(_NAMES), keys), lambda row, head, at: (row, 0, at)),
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
    seen = {name: k_fields[i, pl.ds(0, k.shape[0])][None, :] for i, name in enumerate(_NAMES)}

    def step(turn, totals):
        at = pl.ds(others[turn] * queries, queries)
        seers = {name: q_fields[i, at][:, None] for i, name in enumerate(_NAMES)}

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


def gather_gpu(
    x: Shaped[Array, "lead b n *rest"], indices: Int[Array, "b k"], valid: Bool[Array, "b k"], interpret: bool = False
) -> Shaped[Array, "lead b k *rest"]:
    """Same values as `gather_reference`; arguments as there. Numbers of other than 8, 16 or 32 bits go through it.

    Args:
        interpret: run by Pallas' interpreter on any machine, for tests.
    """
    bits = as_bits(x)
    if not jnp.issubdtype(bits.dtype, jnp.integer) or bits.dtype.itemsize > 4 or not x.size:
        return gather_reference(x, indices, valid)
    flat = rearrange(bits.reshape(*x.shape[:3], -1), "lead b n w -> (lead b) n w")
    lead, k, width = x.shape[0], indices.shape[1], flat.shape[2]
    # A place that is not valid has no row.
    places = _padded(jnp.where(valid, indices, -1).astype(jnp.int32), 1, ROWS, -1)
    b, padded = places.shape
    columns = min(COLUMNS, _power(width))
    out = jax.ShapeDtypeStruct((lead * b, padded, width), flat.dtype)
    taken = pl.pallas_call(
        functools.partial(_gather_kernel, columns),
        grid=(padded // ROWS, pl.cdiv(width, columns), lead * b),
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
