"""Rows taken out of an array for TPU: one copy (DMA) a row from HBM to VMEM, all rows of a block in flight at once.

A copy can begin at any row of an array whose rows are whole tiles: rows of several heads, or of 32-bit numbers. Rows of
16-bit numbers lie in pairs, which share their 32-bit words: the pair is copied, and its half is taken by a shift. So
what is asked for is all that is read, or twice that, and bits stay what they are.

What does not lie in such rows (other widths, other sizes of numbers) is XLA's to gather: `why_not`.
Definition: `reference.gather_reference`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Int, Shaped

from macro.kernels.attention.ordering import padded
from macro.kernels.select.reference import as_bits, from_bits

ROWS = 128  # of a block
_LANES = 128
_DTYPES = ("float32", "int32", "uint32", "bfloat16", "float16", "int16", "uint16")
# Indices lie in scalar memory, of which a core has a megabyte.
_MOST_INDICES = 1 << 17


def why_not(x: Shaped[Array, "lead b n *rest"], indices: Int[Array, "b k"]) -> str | None:
    """Why `gather_tpu` cannot take such rows, or None."""
    if x.dtype.name not in _DTYPES:
        return f"{x.dtype} is none of {', '.join(_DTYPES)}"
    if x.ndim < 4 or x.shape[-1] % _LANES:
        return f"rows of {x.shape[3:]} numbers are no whole lanes of {_LANES}"
    places = indices.shape[0] * -(-indices.shape[1] // ROWS) * ROWS
    return f"{places:,} indices, and scalar memory holds {_MOST_INDICES:,}" if places > _MOST_INDICES else None


def gather_tpu(
    x: Shaped[Array, "lead b n *rest"], indices: Int[Array, "b k"], valid: Bool[Array, "b k"], interpret: bool = False
) -> Shaped[Array, "lead b k *rest"]:
    """Same values as `gather_reference`; arguments as there.

    Args:
        interpret: run by Pallas' interpreter on any machine, for tests.
    """
    rest, size = x.shape[3:], x.dtype.itemsize
    # A place that is not valid has no row.
    places = padded(jnp.where(valid, indices, -1).astype(jnp.int32), 1, ROWS, -1)
    # Numbers keep their type, for nothing is reckoned with them, and XLA would copy all of them to change it. Only the
    # interpreter, which is XLA on a CPU, would round them.
    rows = as_bits(x) if interpret else x
    rows = rows.reshape(*x.shape[:3], -1, rest[-1]) if len(rest) > 1 else rows
    take = _pairs if len(rest) == 1 and size == 2 else _rows
    taken = take(rows, places, interpret)[:, :, : indices.shape[1]]
    return from_bits(taken.reshape(*taken.shape[:3], *rest), x.dtype)


def _call(kernel, x: Array, places: Array, inputs: list, scratch: list, reads: int, interpret: bool) -> Array:
    """One `pallas_call` over (lead, row of the batch, block of places).

    Args:
        inputs: (array `[b, k, width]`, its block's width) beside `x`, which stays in HBM.
        reads: rows copied for each that is asked for.
    """
    lead, b, _, *row = x.shape
    k = places.shape[1]
    out = jax.ShapeDtypeStruct((lead, b, k, *row), x.dtype)
    moved = out.size * out.dtype.itemsize
    call = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(lead, b, k // ROWS),
            in_specs=[pl.BlockSpec((None, rows, 1), lambda layer, row, at, _: (row, at, 0)) for _, rows in inputs]
            + [pl.BlockSpec(memory_space=pl.ANY)],
            # Not squeezed: Mosaic's lowering of a copy into a part of a block forgets the dimensions that are.
            out_specs=pl.BlockSpec((1, 1, ROWS, *row), lambda i, j, at, _: (i, j, at) + (0,) * len(row)),
            scratch_shapes=[*scratch, pltpu.SemaphoreType.DMA],
        ),
        out_shape=out,
        cost_estimate=pl.CostEstimate(flops=0, bytes_accessed=(1 + reads) * moved, transcendentals=0),
        interpret=interpret,
        name="macro_select_gather",
    )
    # One dimension: the second of two would be padded to whole lanes.
    return call(places.reshape(-1), *(given for given, _ in inputs), x)


def _copied(places, targets, begin, source, sent) -> None:
    """Copies one row for every place of a block; rows of zeros where there is no place.

    Args:
        targets: place's number -> where the row goes to.
        source: place's index -> where it comes from.
    """

    @pl.loop(0, ROWS)
    def _(i):
        index, target = places[begin + i], targets(i)

        @pl.when(index >= 0)
        def _():
            pltpu.make_async_copy(source(index), target, sent).start()

        @pl.when(index < 0)
        def _():
            target[...] = jnp.zeros(target.shape, target.dtype)

    @pl.loop(0, ROWS)
    def _(i):
        @pl.when(places[begin + i] >= 0)
        def _():
            # Every copy is as long as any other, and waiting counts bytes.
            pltpu.make_async_copy(source(0), targets(i), sent).wait()


def _begin(k: int):
    return pl.program_id(1) * k + pl.program_id(2) * ROWS


def _rows(x: Array, places: Array, interpret: bool) -> Array:
    k = places.shape[1]

    def kernel(places, x, out, sent):
        here = x.at[pl.program_id(0), pl.program_id(1)]
        _copied(places, lambda i: out.at[0, 0, pl.ds(i, 1)], _begin(k), lambda index: here.at[pl.ds(index, 1)], sent)

    return _call(kernel, x, places, [], [], 1, interpret)


def _pairs(x: Array, places: Array, interpret: bool) -> Array:
    """Rows of 16-bit numbers: rows 2i and 2i + 1 share their words, the first in the lower halves."""
    k, width = places.shape[1], x.shape[3]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, x.shape[2] % 2), (0, 0)))
    # How far the half that is asked for lies up in its word.
    shifts = jnp.where(places >= 0, places & 1, 0).astype(jnp.uint32) << 4
    even, odd = shifts[:, 0::2, None], shifts[:, 1::2, None]

    def kernel(places, even, odd, x, out, words, sent):
        here = x.bitcast(jnp.uint32).at[pl.program_id(0), pl.program_id(1)]

        def target(i):
            return words.at[i & 1, pl.ds(i >> 1, 1)]

        _copied(places, target, _begin(k), lambda index: here.at[pl.ds(index >> 1, 1)], sent)
        low = (words[0] >> even[...]) & jnp.uint32(0xFFFF)
        high = (words[1] >> odd[...]) << 16
        out[0, 0] = pltpu.bitcast(low | high, out.dtype)

    words = pltpu.VMEM((2, ROWS // 2, width), jnp.uint32)
    inputs = [(even, ROWS // 2), (odd, ROWS // 2)]
    return _call(kernel, x, places, inputs, [words], 2, interpret)
