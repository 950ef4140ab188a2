"""The three kernels of flash attention for TPU: forward, queries' gradient, keys' and values' gradient.

All take tokens that `pallas_tpu.py` has padded and transposed to `[b, heads, tokens, d]`. The grid is (row, key head,
visit): the block mask names the block of queries and the block of keys of each step, and is sorted by the block that is
written (queries, or in the last kernel keys), so that a result stays in VMEM until it is complete. The query heads of
one key head are processed in one step: they share the mask.

The last kernel computes transposed scores, keys by queries, so that the values of a query are along lanes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from macro.kernels.attention.block_mask import BlockMask
from macro.kernels.attention.reference import MASK_VALUE
from macro.sentence.attention_mask import MASK_FIELDS, mask_mod

LANES = 128
# Blocks, scratch and scores take 14 to 23 MB at BAGEL's sizes in bfloat16, and v5p has 64 MiB.
_VMEM_BYTES = 48 * 1024 * 1024


class KernelConfig(NamedTuple):
    """The static configuration of a kernel.

    Attributes:
        queries, keys: tokens of a block.
        rectangle: the caller's (b, nq, h, nk, kv, d), from which the cost estimate follows.
        interpret: run by Pallas' interpreter, on any machine.
    """

    queries: int
    keys: int
    rectangle: tuple
    interpret: bool


class _Blocks:
    """Block specs by content; the block mask is sorted by the blocks of side `major`, "q" or "k"."""

    def __init__(self, config: KernelConfig, q: Array, k: Array, major: str):
        group, d, fields = q.shape[1] // k.shape[1], q.shape[3], len(MASK_FIELDS)
        self.outer_blocks = q.shape[2] // config.queries if major == "q" else k.shape[2] // config.keys
        self.streamed = []

        def spec(shape, side, place):
            def index(row, head, step, outer, inner, full, counts):
                at = outer[row, step] if side == major else jnp.maximum(inner[row, step], 0)
                return place(row, head, at)

            block = pl.BlockSpec(shape, index)
            if side != major:
                self.streamed.append(block)
            return block

        self.queries = spec((None, group, config.queries, d), "q", lambda row, head, at: (row, head, at, 0))
        self.keys = spec((None, None, config.keys, d), "k", lambda row, head, at: (row, head, at, 0))
        self.of_query = spec((None, None, group, config.queries), "q", lambda row, head, at: (row, head, 0, at))
        self.q_columns = spec((None, config.queries, fields), "q", lambda row, head, at: (row, at, 0))
        self.q_rows = spec((None, fields, config.queries), "q", lambda row, head, at: (row, 0, at))
        self.k_columns = spec((None, config.keys, fields), "k", lambda row, head, at: (row, at, 0))
        self.k_rows = spec((None, fields, config.keys), "k", lambda row, head, at: (row, 0, at))
        self.bias_column = spec((None, config.keys, 1), "k", lambda row, head, at: (row, at, 0))
        self.bias_row = spec((None, 1, config.keys), "k", lambda row, head, at: (row, 0, at))

    def reads(self, block: pl.BlockSpec) -> int:
        """How often an array in such blocks is read if every pair of blocks is visited."""
        return self.outer_blocks if any(block is x for x in self.streamed) else 1


def _call(
    kernel, name: str, config: KernelConfig, blocks: _Blocks, matmuls: int, block_mask, operands, results, scratch
):
    """One `pallas_call` over (row, key head, visit).

    Args:
        matmuls: products of nq x nk x d per head. The cost estimate, read by the compiler and `parallel/cost_model`,
            is that of the whole rectangle of pairs, since which are visited depends on the data.
        operands: (array, block spec); results: (shape, dtype, block spec); scratch: shapes, float32.
    """
    b, nq, h, nk, kv, d = config.rectangle
    arrays, specs = zip(*operands, strict=True)
    outputs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype, _ in results]
    moved = sum(x.size * x.dtype.itemsize * blocks.reads(spec) for x, spec in operands)
    moved += sum(math.prod(x.shape) * x.dtype.itemsize for x in outputs)
    call = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(block_mask),
            grid=(b, kv, jnp.max(block_mask.counts)),
            in_specs=specs,
            out_specs=[spec for _, _, spec in results],
            scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
        ),
        out_shape=outputs,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=_VMEM_BYTES
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * matmuls * b * h * nq * nk * d, bytes_accessed=moved, transcendentals=b * h * nq * nk
        ),
        interpret=config.interpret,
        name=name,
    )
    return tuple(call(*block_mask, *arrays))


def _visit(outer, inner, full, counts):
    """Whether this step is the first and the last of its outer block, is a visit, and is of a full pair."""
    row, step = pl.program_id(0), pl.program_id(2)
    here, count = outer[row, step], counts[row]
    begins = (step == 0) | (outer[row, jnp.maximum(step - 1, 0)] != here)
    # Invalid entries repeat the last one, so that no block changes after it.
    ends = (step == count - 1) | (outer[row, jnp.minimum(step + 1, outer.shape[1] - 1)] != here)
    return begins, ends, (step < count) & (inner[row, step] >= 0), full[row, step] == 1


def _columns(ref) -> dict:
    return {name: ref[:, i : i + 1] for i, name in enumerate(MASK_FIELDS)}


def _rows(ref) -> dict:
    return {name: ref[i : i + 1, :] for i, name in enumerate(MASK_FIELDS)}


def _write_bias(bias, full, mask, k_bias):
    """The keys' bias where a query sees a key, MASK_VALUE elsewhere, which absorbs any score added to it."""

    # The mask takes as long as one head's products, and most pairs of blocks in a long sentence do not need it.
    @pl.when(full)
    def _():
        bias[...] = jnp.broadcast_to(k_bias[...], bias.shape)

    @pl.when(~full)
    def _():
        bias[...] = jnp.where(mask(), k_bias[...], MASK_VALUE)


def _lanes(x: Array, n: int) -> Array:
    """`x [m, LANES]`, the same in every lane, as `[m, n]`."""
    return x[:, :n] if n < LANES else jnp.concatenate([x] * (n // LANES), axis=1)


def _dot(a: Array, b: Array) -> Array:
    """a b in float32."""
    return lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)


def _dot_t(a: Array, b: Array) -> Array:
    """a b^T in float32."""
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def _forward_kernel(*refs):
    *block_mask, q_meta, k_meta, k_bias, q, k, v, attended, lse, top, total, sums, bias = refs
    begins, ends, meets, full = _visit(*block_mask)
    group, keys = q.shape[0], k.shape[0]

    @pl.when(begins)
    def _():
        top[...] = jnp.full(top.shape, MASK_VALUE)
        total[...] = jnp.zeros(total.shape)
        sums[...] = jnp.zeros(sums.shape)

    @pl.when(meets)
    def _():
        _write_bias(bias, full, lambda: mask_mod(_columns(q_meta), _rows(k_meta)), k_bias)

        @pl.loop(0, q.shape[0])
        def _(head):
            scores = _dot_t(q[head], k[...]) + bias[...]
            old = top[head]
            new = jnp.maximum(old, jnp.max(scores, axis=1, keepdims=True))
            weights = jnp.exp(scores - _lanes(new, keys))
            shrink = jnp.exp(old - new)
            total[head] = total[head] * shrink + jnp.sum(weights, axis=1, keepdims=True)
            sums[head] = sums[head] * _lanes(shrink, sums.shape[2]) + _dot(weights.astype(v.dtype), v[...])
            top[head] = new

    @pl.when(ends)
    def _():
        @pl.loop(0, group)
        def _(head):
            seeing = top[head] > MASK_VALUE
            divisor = jnp.where(seeing, total[head], 1.0)
            width = sums.shape[2]
            mean = jnp.where(_lanes(top[head], width) > MASK_VALUE, sums[head] / _lanes(divisor, width), 0.0)
            attended[head] = mean.astype(attended.dtype)
            kept = jnp.where(seeing, top[head] + jnp.log(divisor), MASK_VALUE)
            lse[pl.ds(head, 1), :] = kept.T[:1]


def forward(config: KernelConfig, block_mask: BlockMask, q, k, v, q_meta, k_meta, k_bias) -> tuple[Array, Array]:
    """Attended values `[b, h, nq, d]` and log-sum-exp `[b, kv, h // kv, nq]`, float32.

    Args:
        config: block sizes, which divide the numbers of tokens.
        block_mask: sorted by blocks of queries.
        q `[b, h, nq, d]`, scaled; k, v `[b, kv, nk, d]`; d a multiple of LANES.
        q_meta, k_meta: int32 `[b, MASK_FIELDS, n]`.
        k_bias: float32 `[b, 1, nk]`.
    """
    (b, h, nq, d), kv = q.shape, k.shape[1]
    group, blocks = h // kv, _Blocks(config, q, k, "q")
    return _call(
        _forward_kernel, "macro_attention_forward", config, blocks, 2, block_mask,
        [(q_meta.swapaxes(1, 2), blocks.q_columns), (k_meta, blocks.k_rows), (k_bias, blocks.bias_row),
         (q, blocks.queries), (k, blocks.keys), (v, blocks.keys)],
        [(q.shape, q.dtype, blocks.queries), ((b, kv, group, nq), jnp.float32, blocks.of_query)],
        [(group, config.queries, LANES)] * 2 + [(group, config.queries, d), (config.queries, config.keys)],
    )  # fmt: skip


def _d_queries_kernel(*refs):
    *block_mask, q_meta, k_meta, k_bias, q, k, v, d_out, lse, delta, d_q, sums, lses, deltas, bias = refs
    begins, ends, meets, full = _visit(*block_mask)
    group, keys = q.shape[0], k.shape[0]

    @pl.when(begins)
    def _():
        sums[...] = jnp.zeros(sums.shape)

        @pl.loop(0, group)
        def _(head):
            for kept, rows in ((lses, lse), (deltas, delta)):
                row = rows[pl.ds(head, 1), :]
                kept[head] = jnp.broadcast_to(row, (LANES, row.shape[1])).T

    @pl.when(meets)
    def _():
        _write_bias(bias, full, lambda: mask_mod(_columns(q_meta), _rows(k_meta)), k_bias)

        @pl.loop(0, q.shape[0])
        def _(head):
            scores = _dot_t(q[head], k[...]) + bias[...]
            weights = jnp.exp(scores - _lanes(lses[head], keys))
            d_scores = weights * (_dot_t(d_out[head], v[...]) - _lanes(deltas[head], keys))
            sums[head] += _dot(d_scores.astype(k.dtype), k[...])

    @pl.when(ends)
    def _():
        d_q[...] = sums[...].astype(d_q.dtype)


def d_queries(config: KernelConfig, block_mask: BlockMask, q, k, v, q_meta, k_meta, k_bias, d_out, lse, delta) -> Array:
    """Gradient of the scaled queries, `[b, h, nq, d]`; other arguments are those and the results of `forward`.

    Args:
        d_out: gradient of the attended values, shaped as q.
        delta: `sum_d(d_out * attended)`, shaped as lse.
    """
    d, group, blocks = q.shape[3], lse.shape[2], _Blocks(config, q, k, "q")
    return _call(
        _d_queries_kernel, "macro_attention_dq", config, blocks, 3, block_mask,
        [(q_meta.swapaxes(1, 2), blocks.q_columns), (k_meta, blocks.k_rows), (k_bias, blocks.bias_row),
         (q, blocks.queries), (k, blocks.keys), (v, blocks.keys),
         (d_out, blocks.queries), (lse, blocks.of_query), (delta, blocks.of_query)],
        [(q.shape, q.dtype, blocks.queries)],
        [(group, config.queries, d)] + [(group, config.queries, LANES)] * 2 + [(config.queries, config.keys)],
    )[0]  # fmt: skip


def _d_keys_values_kernel(*refs):
    *block_mask, q_meta, k_meta, k_bias, q, k, v, d_out, lse, delta, d_k, d_v, k_sums, v_sums, bias = refs
    begins, ends, meets, full = _visit(*block_mask)

    @pl.when(begins)
    def _():
        k_sums[...] = jnp.zeros(k_sums.shape)
        v_sums[...] = jnp.zeros(v_sums.shape)

    @pl.when(meets)
    def _():
        _write_bias(bias, full, lambda: mask_mod(_rows(q_meta), _columns(k_meta)), k_bias)

        @pl.loop(0, q.shape[0])
        def _(head):
            scores = _dot_t(k[...], q[head]) + bias[...]
            weights = jnp.exp(scores - lse[pl.ds(head, 1), :])
            v_sums[...] += _dot(weights.astype(d_out.dtype), d_out[head])
            d_scores = weights * (_dot_t(v[...], d_out[head]) - delta[pl.ds(head, 1), :])
            k_sums[...] += _dot(d_scores.astype(q.dtype), q[head])

    @pl.when(ends)
    def _():
        d_k[...] = k_sums[...].astype(d_k.dtype)
        d_v[...] = v_sums[...].astype(d_v.dtype)


def d_keys_values(
    config: KernelConfig, block_mask: BlockMask, q, k, v, q_meta, k_meta, k_bias, d_out, lse, delta
) -> tuple[Array, Array]:
    """Gradients of keys and values, `[b, kv, nk, d]`; as `d_queries`, but block_mask sorted by blocks of keys."""
    d, blocks = q.shape[3], _Blocks(config, q, k, "k")
    return _call(
        _d_keys_values_kernel, "macro_attention_dkv", config, blocks, 4, block_mask,
        [(q_meta, blocks.q_rows), (k_meta.swapaxes(1, 2), blocks.k_columns),
         (k_bias.swapaxes(1, 2), blocks.bias_column),
         (q, blocks.queries), (k, blocks.keys), (v, blocks.keys),
         (d_out, blocks.queries), (lse, blocks.of_query), (delta, blocks.of_query)],
        [(k.shape, k.dtype, blocks.keys), (v.shape, v.dtype, blocks.keys)],
        [(config.keys, d)] * 2 + [(config.keys, config.queries)],
    )  # fmt: skip
