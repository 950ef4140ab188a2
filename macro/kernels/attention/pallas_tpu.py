"""Flash attention under the attention mask for TPU, in Pallas (Mosaic).

The mask is computed inside the kernels from the tokens' metadata. A kernel gets the list of the pairs of blocks to
visit (`block_mask.py`) by scalar prefetch, and its grid, of traced length, follows that list: other pairs cost nothing.
Tokens are not reordered: a packed sequence is a few buffers in each of which sentences are contiguous, so a block sees
few others anyway, and sorting would cost more (and half a minute of compiling) than the pairs it would save. Keys are
never repeated for grouped heads. Softmax runs along the keys (Milakov & Gimelshein, arXiv 1805.02867); the backward
pass recomputes the weights from the kept log-sum-exp (Dao et al., arXiv 2205.14135). Memory grows with n.

Definition: `reference.py`. Read next: `pallas_tpu_kernels.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from macro.kernels.attention.block_mask import (
    balanced_block_size,
    block_mask,
    pad_to_multiple,
    stack_fields,
    visible_block_pairs,
)
from macro.kernels.attention.pallas_tpu_kernels import LANES, KernelConfig, d_keys_values, d_queries, forward
from macro.kernels.attention.reference import MASK_VALUE
from macro.sentence.attention_mask import MASK_FIELDS

# At most so many tokens of a block, and query rows of a block over all heads of a key head.
QUERIES, KEYS, ROWS = 512, 1024, 4096
# Pairs of blocks of all rows: their lists, three numbers a pair, must fit a megabyte of scalar memory.
_PAIRS = 85_000


def unsupported_reason(q: Float[Array, "b nq h d"], k: Float[Array, "b nk kv d"]) -> str | None:
    """Why `attention_tpu` does not support such queries and keys, or None."""
    (b, nq, h, _), (nk, kv) = q.shape, k.shape[1:3]
    queries, keys = blocks(nq, nk, h // kv)
    pairs = b * -(-nq // queries) * -(-nk // keys)
    return f"{pairs:,} pairs of blocks, and scalar memory holds {_PAIRS:,}" if pairs > _PAIRS else None


def attention_tpu(
    q, k, v, q_meta: Mapping, k_meta: Mapping, k_bias=None, interpret: bool = False
) -> tuple[Array, Array]:
    """Same values as `attention_reference`; arguments and shapes as in `api.attention_with_lse`.

    Args:
        interpret: run by Pallas' interpreter on any machine, for tests.
    """
    (b, nq, h, d), (nk, kv) = q.shape, k.shape[1:3]
    config = KernelConfig(*blocks(nq, nk, h // kv), (b, nq, h, nk, kv, d), interpret)
    dtype = jnp.result_type(q, k, v)
    scaled = q.astype(dtype) * d**-0.5
    q_meta, k_meta = ({name: meta[name] for name in MASK_FIELDS} for meta in (q_meta, k_meta))
    bias = jnp.zeros((b, nk)) if k_bias is None else jax.lax.stop_gradient(k_bias.astype(jnp.float32))
    attended, lse = _attend(config, scaled, k.astype(dtype), v.astype(dtype), q_meta, k_meta, bias)
    # [b, kv, h // kv, n] with n in whole blocks
    lse = rearrange(lse[..., :nq], "b g r n -> b n (g r)")
    return attended.astype(q.dtype), jax.lax.stop_gradient(lse)


def blocks(nq: int, nk: int, group: int) -> tuple[int, int]:
    """Block sizes of queries and keys where `group` heads share a key head."""
    return balanced_block_size(nq, min(QUERIES, max(ROWS // group, LANES)), LANES), balanced_block_size(nk, KEYS, LANES)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(config: KernelConfig, q, k, v, q_meta, k_meta, bias):
    return _attend_forward(config, q, k, v, q_meta, k_meta, bias)[0]


def _attend_forward(config: KernelConfig, q, k, v, q_meta, k_meta, bias):
    q_fields, k_fields = stack_fields(q_meta, config.queries), stack_fields(k_meta, config.keys)
    pairs = visible_block_pairs(q_fields, k_fields, config.queries, config.keys)
    arrays = to_kernel_layout(q, config.queries), to_kernel_layout(k, config.keys), to_kernel_layout(v, config.keys)
    attended, lse = forward(config, block_mask(*pairs), *arrays, q_fields, k_fields, _biases(bias, config.keys))
    attended = _from_kernel_layout(attended, q)
    return (attended, lse), (q, k, v, q_meta, k_meta, bias, attended, lse)


def _attend_backward(config: KernelConfig, kept, cotangents):
    q, k, v, q_meta, k_meta, bias, attended, lse = kept
    d_attended = cotangents[0]
    # lse = inf gives weights of zero to queries without visible keys.
    lse = jnp.where(lse > MASK_VALUE, lse, jnp.inf)
    q_fields, k_fields = stack_fields(q_meta, config.queries), stack_fields(k_meta, config.keys)
    pairs = visible_block_pairs(q_fields, k_fields, config.queries, config.keys)
    # sum_k weight * d_weight = sum_d d_out * attended
    delta = jnp.sum(d_attended.astype(jnp.float32) * attended.astype(jnp.float32), axis=-1, keepdims=True)
    delta = _heads_first(delta, config.queries)[..., 0].reshape(lse.shape)
    arguments = (
        to_kernel_layout(q, config.queries), to_kernel_layout(k, config.keys), to_kernel_layout(v, config.keys),
        q_fields, k_fields, _biases(bias, config.keys), to_kernel_layout(d_attended, config.queries), lse, delta,
    )  # fmt: skip
    d_q = d_queries(config, block_mask(*pairs), *arguments)
    d_k, d_v = d_keys_values(config, block_mask(*(x.swapaxes(1, 2) for x in pairs)), *arguments)
    return _from_kernel_layout(d_q, q), _from_kernel_layout(d_k, k), _from_kernel_layout(d_v, v), None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _biases(bias: Array, block: int) -> Array:
    """The keys' bias `[b, 1, n]`, padded to whole blocks."""
    return pad_to_multiple(bias, 1, block)[:, None]


def _heads_first(x: Array, block: int) -> Array:
    """`x [b, n, h, d]` as `[b, h, n, d]`, zero-padded to whole blocks."""
    return pad_to_multiple(x, 1, block).swapaxes(1, 2)


def to_kernel_layout(x: Array, block: int) -> Array:
    """As `_heads_first`, with d padded to whole lanes (as in a TPU's memory anyway)."""
    return _heads_first(pad_to_multiple(x, 3, LANES), block)


def _from_kernel_layout(x: Array, like: Array) -> Array:
    """The inverse of `to_kernel_layout`, to the shape of `like [b, n, h, d]`."""
    return x[:, :, : like.shape[1], : like.shape[3]].swapaxes(1, 2)
