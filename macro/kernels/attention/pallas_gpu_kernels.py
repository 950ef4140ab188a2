"""The three kernels of flash attention for GPU, in Triton: forward, queries' gradient, keys' and values' gradient.

Arrays have the model's layout, `[b, tokens, heads, d]`, in whole blocks, d a power of two (`pallas_gpu.py` pads).
One program owns one block (of queries of one head, or in the last kernel of keys of one key head) and loops over the
blocks on the other side that the block mask names: first partial blocks, which are masked pair by pair, then full ones,
in which every query sees every key. Two loops instead of a branch in one, so that Triton can pipeline the loads.

Scores are kept times log2(e), so that weights are powers of two, which is what the hardware computes; the kept
log-sum-exp is natural outside. The last kernel computes transposed scores, keys by queries.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array

from macro.kernels.attention.reference import MASK_VALUE
from macro.sentence.attention_mask import MASK_FIELDS, mask_mod

_LOG2_E = math.log2(math.e)


class KernelConfig(NamedTuple):
    """The static configuration of a kernel.

    Attributes:
        queries, keys: tokens of a block, powers of two of at least 16.
        warps: of a program, 32 threads each.
        rectangle: the caller's (b, nq, h, nk, kv, d), from which the cost estimate and the scale follow.
        interpret: run by Pallas' interpreter, on any machine.
    """

    queries: int
    keys: int
    warps: int
    rectangle: tuple
    interpret: bool

    @property
    def scale(self) -> float:
        return self.rectangle[-1] ** -0.5


class BlockMask(NamedTuple):
    """The blocks of the other side that each block visits, int32 (FlexAttention's kv_indices and kv_num_blocks).

    Attributes:
        indices: `[b, m, n]` numbers of the blocks to visit, partial ones (masked pair by pair) before full ones.
        counts: `[b, m, 2]` the number of partial blocks, and of all blocks to visit.
    """

    indices: Array
    counts: Array


class _Blocks:
    """Block specs by content. Programs are (block, head, row); `owned` is the side of which a program has one block.

    Of the other side it gets all tokens of its row and head, and loads them block by block. In the last kernel, where
    keys are owned, the heads of the grid are key heads and a program gets all query heads of its key head.
    """

    def __init__(self, config: KernelConfig, q: Array, k: Array, owned: str):
        group, d = q.shape[2] // k.shape[2], q.shape[3]
        nq, nk = q.shape[1], k.shape[1]
        if owned == "q":
            self.grid = (nq // config.queries, q.shape[2], q.shape[0])
            self.queries = pl.BlockSpec((None, config.queries, None, d), lambda at, head, row: (row, at, head, 0))
            self.of_query = pl.BlockSpec((None, None, config.queries), lambda at, head, row: (row, head, at))
            self.keys = pl.BlockSpec((None, nk, None, d), lambda at, head, row: (row, 0, lax.div(head, group), 0))
        else:
            self.grid = (nk // config.keys, k.shape[2], q.shape[0])
            self.queries = pl.BlockSpec((None, nq, group, d), lambda at, head, row: (row, 0, head, 0))
            self.of_query = pl.BlockSpec((None, group, nq), lambda at, head, row: (row, head, 0))
            self.keys = pl.BlockSpec((None, config.keys, None, d), lambda at, head, row: (row, at, head, 0))
        q_owned, k_owned = owned == "q", owned == "k"
        q_meta = self._of_row((len(MASK_FIELDS), config.queries if q_owned else nq), q_owned)
        k_meta = self._of_row((len(MASK_FIELDS), config.keys if k_owned else nk), k_owned)
        k_bias = self._of_row((1, config.keys if k_owned else nk), k_owned)
        forward = q_meta, k_meta, k_bias, self.queries, self.keys, self.keys
        self.operands = *forward, self.queries, self.of_query, self.of_query  # d_out, lse and delta

    @staticmethod
    def _of_row(shape: tuple, owned: bool) -> pl.BlockSpec:
        return pl.BlockSpec((None, *shape), lambda at, head, row: (row, 0, at if owned else 0))

    @staticmethod
    def of_block_mask(block_mask: BlockMask) -> list[pl.BlockSpec]:
        return [pl.BlockSpec((None, None, x.shape[2]), lambda at, head, row: (row, at, 0)) for x in block_mask]


def _call(
    kernel, name: str, config: KernelConfig, blocks: _Blocks, matmuls: int, block_mask: BlockMask, operands, results
):
    """One `pallas_call`.

    Args:
        matmuls: products of nq x nk x d per head. The cost estimate is for the whole rectangle of pairs, each operand
            read once, since which are visited depends on the data. JAX 0.10's lowering to Triton drops it.
        operands: arrays (or None), as many as the kernel takes of `blocks.operands`.
        results: (shape, dtype, block spec).
    """
    b, nq, h, nk, _, d = config.rectangle
    specs = [None if x is None else spec for x, spec in zip(operands, blocks.operands, strict=False)]
    outputs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype, _ in results]
    moved = sum(math.prod(x.shape) * x.dtype.itemsize for x in (*operands, *outputs) if x is not None)
    return pl.pallas_call(
        functools.partial(kernel, config),
        grid=blocks.grid,
        in_specs=blocks.of_block_mask(block_mask) + specs,
        out_specs=[spec for _, _, spec in results],
        out_shape=outputs,
        # Three stages: a block's number must be loaded before the load of its keys can start.
        compiler_params=plgpu.CompilerParams(num_warps=config.warps, num_stages=3),
        cost_estimate=pl.CostEstimate(
            flops=2 * matmuls * b * h * nq * nk * d, bytes_accessed=moved, transcendentals=b * h * nq * nk
        ),
        interpret=config.interpret,
        name=name,
    )(*block_mask, *operands)


def _loop_blocks(counts, step, start):
    """The final carry of `step(turn, carry, masked)` over partial blocks (`masked`), then over full ones."""
    partial, visited = counts
    carry = lax.fori_loop(0, partial, functools.partial(step, masked=True), start)
    return lax.fori_loop(partial, visited, functools.partial(step, masked=False), carry)


def _tokens(ref, at) -> dict:
    """Metadata of the tokens `at`, `[tokens]` by field."""
    return {name: ref[i, at] for i, name in enumerate(MASK_FIELDS)}


def _down(meta: dict) -> dict:
    return {name: x[:, None] for name, x in meta.items()}


def _across(meta: dict) -> dict:
    return {name: x[None, :] for name, x in meta.items()}


def _dot(a: Array, b: Array) -> Array:
    """a b, summed in float32; float32 operands are not rounded to TF32, which Triton would do by default."""
    return lax.dot_general(a, b, (((1,), (0,)), ((), ())), lax.Precision.HIGHEST, jnp.float32)


def _dot_t(a: Array, b: Array) -> Array:
    """a b^T, likewise."""
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())), lax.Precision.HIGHEST, jnp.float32)


def _all(size: int):
    return pl.ds(0, size)


def _block(number: Array, size: int):
    return pl.ds(number * size, size)


def _scores(config: KernelConfig, products: Array, bias, mask) -> Array:
    """Scores times log2(e), MASK_VALUE where `mask` (None: all visible) is false; `bias` broadcasts or is None."""
    scores = products * (config.scale * _LOG2_E)
    if bias is not None:
        scores = scores + bias * _LOG2_E
    return scores if mask is None else jnp.where(mask, scores, MASK_VALUE)


def _forward_kernel(config: KernelConfig, indices, counts, q_meta, k_meta, k_bias, q, k, v, attended, lse):
    queries, seers = q[...], _down(_tokens(q_meta, _all(config.queries)))

    def step(turn, carry, masked):
        top, total, sums = carry
        at = _block(indices[turn], config.keys)
        mask = mask_mod(seers, _across(_tokens(k_meta, at))) if masked else None
        bias = None if k_bias is None else k_bias[0, at][None, :]
        scores = _scores(config, _dot_t(queries, k[at, :]), bias, mask)
        new = jnp.maximum(top, jnp.max(scores, axis=1))
        weights = jnp.exp2(scores - new[:, None])
        shrink = jnp.exp2(top - new)
        sums = sums * shrink[:, None] + _dot(weights.astype(v.dtype), v[at, :])
        return new, total * shrink + jnp.sum(weights, axis=1), sums

    start = jnp.full(config.queries, MASK_VALUE), jnp.zeros(config.queries), jnp.zeros(q.shape)
    top, total, sums = _loop_blocks((counts[0], counts[1]), step, start)
    seeing = top > MASK_VALUE
    total = jnp.where(seeing, total, 1.0)
    attended[...] = jnp.where(seeing[:, None], sums / total[:, None], 0.0).astype(attended.dtype)
    lse[...] = jnp.where(seeing, top / _LOG2_E + jnp.log(total), MASK_VALUE)


def forward(config: KernelConfig, block_mask: BlockMask, q, k, v, q_meta, k_meta, k_bias) -> tuple[Array, Array]:
    """Attended values `[b, nq, h, d]` and log-sum-exp `[b, h, nq]`, float32.

    Args:
        config: block sizes, which divide the numbers of tokens.
        block_mask: the blocks of keys that each block of queries visits.
        q `[b, nq, h, d]`; k, v `[b, nk, kv, d]`; d a power of two.
        q_meta, k_meta: int32 `[b, MASK_FIELDS, n]`.
        k_bias: float32 `[b, 1, nk]` or None.
    """
    b, nq, h, _ = q.shape
    blocks = _Blocks(config, q, k, "q")
    return _call(
        _forward_kernel, "macro_attention_forward", config, blocks, 2, block_mask,
        (q_meta, k_meta, k_bias, q, k, v),
        [(q.shape, q.dtype, blocks.queries), ((b, h, nq), jnp.float32, blocks.of_query)],
    )  # fmt: skip


def _d_queries_kernel(config: KernelConfig, indices, counts, q_meta, k_meta, k_bias, q, k, v, d_out, lse, delta, d_q):
    queries, d_attended, seers = q[...], d_out[...], _down(_tokens(q_meta, _all(config.queries)))
    lses, deltas = lse[...][:, None] * _LOG2_E, delta[...][:, None]

    def step(turn, sums, masked):
        at = _block(indices[turn], config.keys)
        keys = k[at, :]
        mask = mask_mod(seers, _across(_tokens(k_meta, at))) if masked else None
        bias = None if k_bias is None else k_bias[0, at][None, :]
        weights = jnp.exp2(_scores(config, _dot_t(queries, keys), bias, mask) - lses)
        d_scores = weights * (_dot_t(d_attended, v[at, :]) - deltas)
        return sums + _dot(d_scores.astype(k.dtype), keys)

    sums = _loop_blocks((counts[0], counts[1]), step, jnp.zeros(q.shape))
    d_q[...] = (sums * config.scale).astype(d_q.dtype)


def d_queries(config: KernelConfig, block_mask: BlockMask, q, k, v, q_meta, k_meta, k_bias, d_out, lse, delta) -> Array:
    """Gradient of the queries, `[b, nq, h, d]`; other arguments are those and the results of `forward`.

    Args:
        d_out: gradient of the attended values, shaped as q.
        delta: `sum_d(d_out * attended)`, shaped as lse, which is infinite for a query without visible keys.
    """
    blocks = _Blocks(config, q, k, "q")
    return _call(
        _d_queries_kernel, "macro_attention_dq", config, blocks, 3, block_mask,
        (q_meta, k_meta, k_bias, q, k, v, d_out, lse, delta),
        [(q.shape, q.dtype, blocks.queries)],
    )[0]  # fmt: skip


def _d_keys_values_kernel(
    config: KernelConfig, indices, counts, q_meta, k_meta, k_bias, q, k, v, d_out, lse, delta, d_k, d_v
):
    keys, values, seen = k[...], v[...], _down(_tokens(k_meta, _all(config.keys)))
    bias = None if k_bias is None else k_bias[0, _all(config.keys)][:, None]
    group = q.shape[1]

    # All query heads of this key head, one after another for each block of queries.
    def step(turn, sums, masked):
        at, head = _block(indices[lax.div(turn, group)], config.queries), lax.rem(turn, group)
        queries, d_attended = q[at, head, :], d_out[at, head, :]
        mask = mask_mod(_across(_tokens(q_meta, at)), seen) if masked else None
        scores = _scores(config, _dot_t(keys, queries), bias, mask)
        weights = jnp.exp2(scores - lse[head, at][None, :] * _LOG2_E)
        d_scores = weights * (_dot_t(values, d_attended) - delta[head, at][None, :])
        k_sums = sums[0] + _dot(d_scores.astype(q.dtype), queries)
        return k_sums, sums[1] + _dot(weights.astype(d_out.dtype), d_attended)

    k_sums, v_sums = _loop_blocks(
        (counts[0] * group, counts[1] * group), step, (jnp.zeros(k.shape), jnp.zeros(v.shape))
    )
    d_k[...] = (k_sums * config.scale).astype(d_k.dtype)
    d_v[...] = v_sums.astype(d_v.dtype)


def d_keys_values(
    config: KernelConfig, block_mask: BlockMask, q, k, v, q_meta, k_meta, k_bias, d_out, lse, delta
) -> tuple[Array, Array]:
    """Gradients of keys and values, `[b, nk, kv, d]`; as `d_queries`, but `block_mask` is that of blocks of keys."""
    blocks = _Blocks(config, q, k, "k")
    return _call(
        _d_keys_values_kernel, "macro_attention_dkv", config, blocks, 4, block_mask,
        (q_meta, k_meta, k_bias, q, k, v, d_out, lse, delta),
        [(k.shape, k.dtype, blocks.keys), (v.shape, v.dtype, blocks.keys)],
    )  # fmt: skip
