"""Flash attention under the attention mask for GPU, in Pallas' Triton backend.

The mask is computed inside the kernels from the tokens' metadata. Each block of queries gets a list of the blocks
of keys to visit (`block_mask.py`), in the backward pass each block of keys a list of blocks of
queries; other pairs cost nothing. As on TPU tokens are not reordered, keys are never repeated for grouped
heads, softmax runs along the keys (Milakov & Gimelshein, arXiv 1805.02867) and the backward pass computes the weights
again from the kept log-sum-exp (Dao et al., arXiv 2205.14135). Memory grows with n; the lists are one number a pair of
blocks, half a megabyte per packed sequence of 32,768 tokens.

Never run on a GPU so far. Pallas' interpreter checks its numbers; Triton 3.9 and ptxas turn it into code for an H100
(`tests/kernels/test_attention_gpu.py`). Block sizes and warps are such that accumulators stay in registers, by ptxas'
account; how fast they are was not measured.

Definition: `reference.py`. Read next: `pallas_gpu_kernels.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from macro.kernels.attention.block_mask import pad_to_multiple, stack_fields, visible_block_pairs
from macro.kernels.attention.pallas_gpu_kernels import BlockMask, KernelConfig, d_keys_values, d_queries, forward
from macro.kernels.attention.reference import MASK_VALUE
from macro.sentence.attention_mask import MASK_FIELDS

# Tokens of a block at most (queries, keys). With heads of 128 in bfloat16 and eight warps each kernel takes 100 KB of
# an H100's 227 KB of shared memory and some 200 of 255 registers a thread; with four warps two of three spill.
FORWARD, BACKWARD = (128, 64), (64, 64)
# Bytes of a head up to which these sizes hold; beyond, they shrink in proportion. Products of float32 are made outside
# the tensor cores, out of registers, and have room for half.
_WIDE = {4: 128, 2: 256}
_LEAST = 16  # tokens or values along each side of a product of Triton's
_MOST = 256  # values of a head
_DTYPES = ("float32", "bfloat16", "float16")


def unsupported_reason(q: Float[Array, "b nq h d"], k: Float[Array, "b nk kv d"]) -> str | None:
    """Why `attention_gpu` does not support such queries and keys on the present devices, or None."""
    if q.shape[-1] > _MOST:
        return f"heads of {q.shape[-1]} values do not fit a block, which takes {_MOST}"
    dtype = jnp.result_type(q, k)
    if dtype.name not in _DTYPES:
        return f"{dtype} is none of {', '.join(_DTYPES)}"
    return unsupported_device()


def unsupported_device() -> str | None:
    """Why no Triton kernel runs on the present devices, or None."""
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    # AMD writes "gfx90a".
    if capability[:1].isdigit() and float(capability) < 8:
        return f"Triton needs compute capability 8.0 (Ampere), and this device has {capability}"
    return None


def attention_gpu(
    q, k, v, q_meta: Mapping, k_meta: Mapping, k_bias=None, interpret: bool = False
) -> tuple[Array, Array]:
    """Same values as `attention_reference`; arguments and shapes as in `api.attention_with_lse`.

    Products of float32 are float32's own and not TF32's: exact, and an order of magnitude slower than bfloat16.

    Args:
        interpret: run by Pallas' interpreter on any machine, for tests.
    """
    (b, nq, h, d), (nk, kv) = q.shape, k.shape[1:3]
    dtype = jnp.result_type(q, k, v)
    arrays = (x.astype(dtype) for x in (q, k, v))
    q_meta, k_meta = ({name: meta[name] for name in MASK_FIELDS} for meta in (q_meta, k_meta))
    bias = None if k_bias is None else jax.lax.stop_gradient(k_bias.astype(jnp.float32))
    attended, lse = _attend((b, nq, h, nk, kv, d), interpret, *arrays, q_meta, k_meta, bias)
    return attended.astype(q.dtype), jax.lax.stop_gradient(lse.swapaxes(1, 2))


def power(n: int) -> int:
    """The smallest power of two that is at least `n` and at least Triton's minimum."""
    return max(_LEAST, 1 << (n - 1).bit_length())


def blocks(sizes: tuple[int, int], tokens: tuple[int, int], shrink: int) -> tuple[int, int]:
    """Block sizes of queries and keys: these sizes divided by a factor, and smaller where there are fewer tokens."""
    queries, keys = (max(_LEAST, min(size // shrink, power(n))) for size, n in zip(sizes, tokens, strict=True))
    return queries, keys


def _kernel_config(sizes: tuple[int, int], rectangle: tuple, dtype, interpret: bool) -> KernelConfig:
    """The configuration with blocks of at most these sizes (queries, keys), smaller for wide heads and few tokens."""
    _, nq, _, nk, _, d = rectangle
    width, wide = power(d) * dtype.itemsize, _WIDE[dtype.itemsize]
    return KernelConfig(
        *blocks(sizes, (nq, nk), max(1, width // wide)), 8 if width >= wide else 4, rectangle, interpret
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(rectangle, interpret, q, k, v, q_meta, k_meta, bias):
    return _attend_forward(rectangle, interpret, q, k, v, q_meta, k_meta, bias)[0]


def _attend_forward(rectangle, interpret, q, k, v, q_meta, k_meta, bias):
    config = _kernel_config(FORWARD, rectangle, q.dtype, interpret)
    arrays, (pairs, full) = _laid_out(config, q, k, v, q_meta, k_meta, bias)
    attended, lse = forward(config, _block_mask(pairs, full), *arrays)
    # In whole blocks: attended [b, n, h, d], lse [b, h, n]
    attended, lse = _from_kernel_layout(attended, q), lse[:, :, : q.shape[1]]
    return (attended, lse), (q, k, v, q_meta, k_meta, bias, attended, lse)


def _attend_backward(rectangle, interpret, kept, cotangents):
    q, k, v, q_meta, k_meta, bias, attended, lse = kept
    d_attended = cotangents[0]
    config = _kernel_config(BACKWARD, rectangle, q.dtype, interpret)
    arrays, (pairs, full) = _laid_out(config, q, k, v, q_meta, k_meta, bias)
    # sum_k weight * d_weight, without the weights
    delta = jnp.einsum("bnhd,bnhd->bhn", d_attended, attended, preferred_element_type=jnp.float32)
    # lse = inf gives weights of zero to queries without visible keys and to a block's padding.
    lse = jnp.where(lse > MASK_VALUE, lse, jnp.inf)
    padding = (0, 0), (0, 0), (0, -lse.shape[2] % config.queries)
    lse, delta = jnp.pad(lse, padding, constant_values=jnp.inf), jnp.pad(delta, padding)
    arrays = *arrays, to_kernel_layout(d_attended, config.queries), lse, delta
    d_q = d_queries(config, _block_mask(pairs, full), *arrays)
    d_k, d_v = d_keys_values(config, _block_mask(pairs.swapaxes(1, 2), full.swapaxes(1, 2)), *arrays)
    return _from_kernel_layout(d_q, q), _from_kernel_layout(d_k, k), _from_kernel_layout(d_v, v), None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _laid_out(config: KernelConfig, q, k, v, q_meta, k_meta, bias) -> tuple[tuple, tuple]:
    """The arguments of the kernels padded to whole blocks, and which pairs of blocks are visited and full."""
    q_fields, k_fields = stack_fields(q_meta, config.queries), stack_fields(k_meta, config.keys)
    bias = None if bias is None else pad_to_multiple(bias, 1, config.keys)[:, None]
    arrays = to_kernel_layout(q, config.queries), *(to_kernel_layout(x, config.keys) for x in (k, v))
    arrays = *arrays, q_fields, k_fields, bias
    return arrays, visible_block_pairs(q_fields, k_fields, config.queries, config.keys)


def _block_mask(pairs: Bool[Array, "b m n"], full: Bool[Array, "b m n"]) -> BlockMask:
    """For each block of the first axis the blocks of the second to visit."""
    n = pairs.shape[2]
    # Sorted: partial pairs, then full ones, then those without visible keys.
    rank = jnp.where(pairs, jnp.where(full, n, 0) + jnp.arange(n), 2 * n)
    counts = jnp.stack([jnp.sum(pairs & ~full, axis=-1), jnp.sum(pairs, axis=-1)], axis=-1)
    return BlockMask(jnp.sort(rank, axis=-1).astype(jnp.int32) % n, counts.astype(jnp.int32))


def to_kernel_layout(x: Array, block: int) -> Array:
    """`x [b, n, h, d]` zero-padded to whole blocks and a power of two; copied only where padding is needed."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0), (0, power(x.shape[3]) - x.shape[3])))


def _from_kernel_layout(x: Array, like: Array) -> Array:
    """The inverse of `to_kernel_layout`, to the shape of `like`."""
    return x[:, : like.shape[1], :, : like.shape[3]]
