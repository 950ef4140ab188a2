"""Flash attention under the rule of sight for TPU, in Pallas (Mosaic).

The mask is computed inside the kernels from the tokens' metadata. A list of the pairs of blocks that may see each other
(`ordering.py`) is handed to a kernel ahead of it (scalar prefetch), and its grid, of traced length, walks along that
list: pairs left out cost nothing at all. Tokens stay where they lie: a packed row is a few buffers in each of which
sentences follow one another, so a block sees few others as it is, and sorting would cost more (half a minute of
compiling, too) than the last of the pairs. Keys are never repeated for grouped heads. Softmax runs along the keys
(Milakov & Gimelshein, arXiv 1805.02867); the backward pass computes the weights again from the kept log-sum-exp (Dao et
al., arXiv 2205.14135). Memory grows with n.

Definition: `reference.py`. Read next: `pallas_tpu_kernels.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from macro.kernels.attention.ordering import even_block, padded, pairs_of_blocks, stacked, visits
from macro.kernels.attention.pallas_tpu_kernels import LANES, Case, d_keys_values, d_queries, forward
from macro.kernels.attention.reference import HIDDEN
from macro.sentence.sight import FIELDS

# Tokens of a block at most, and query rows of a block over all heads of a key head.
QUERIES, KEYS, ROWS = 512, 1024, 4096
# Pairs of blocks of all rows: their lists, three numbers each, have to fit a megabyte of scalar memory.
_PAIRS = 85_000


def why_not(q: Float[Array, "b nq h d"], k: Float[Array, "b nk kv d"]) -> str | None:
    """Why `attention_tpu` cannot run such queries and keys, or None."""
    (b, nq, h, _), (nk, kv) = q.shape, k.shape[1:3]
    queries, keys = blocks(nq, nk, h // kv)
    pairs = b * -(-nq // queries) * -(-nk // keys)
    return f"{pairs:,} pairs of blocks, and scalar memory holds {_PAIRS:,}" if pairs > _PAIRS else None


def attention_tpu(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    v: Float[Array, "b nk kv d"],
    q_meta: Mapping,
    k_meta: Mapping,
    k_bias: Float[Array, "b nk"] | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "b nq h d"], Float[Array, "b nq h"]]:
    """Same values as `attention_reference`; arguments as in `api.attention_parts`.

    Args:
        interpret: run by Pallas' interpreter on any machine, for tests.
    """
    (b, nq, h, d), (nk, kv) = q.shape, k.shape[1:3]
    case = Case(*blocks(nq, nk, h // kv), (b, nq, h, nk, kv, d), interpret)
    dtype = jnp.result_type(q, k, v)
    scaled = q.astype(dtype) * d**-0.5
    q_meta, k_meta = ({name: meta[name] for name in FIELDS} for meta in (q_meta, k_meta))
    bias = jnp.zeros((b, nk)) if k_bias is None else jax.lax.stop_gradient(k_bias.astype(jnp.float32))
    attended, log_sum = _attend(case, scaled, k.astype(dtype), v.astype(dtype), q_meta, k_meta, bias)
    # [b, kv, h // kv, n] with n in whole blocks
    log_sum = rearrange(log_sum[..., :nq], "b g r n -> b n (g r)")
    return attended.astype(q.dtype), jax.lax.stop_gradient(log_sum)


def blocks(nq: int, nk: int, group: int) -> tuple[int, int]:
    """Queries and keys of a block where `group` heads share a key head."""
    return even_block(nq, min(QUERIES, max(ROWS // group, LANES)), LANES), even_block(nk, KEYS, LANES)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(case: Case, q, k, v, q_meta, k_meta, bias):
    return _attend_forward(case, q, k, v, q_meta, k_meta, bias)[0]


def _attend_forward(case: Case, q, k, v, q_meta, k_meta, bias):
    q_fields, k_fields = stacked(q_meta, case.queries), stacked(k_meta, case.keys)
    pairs = pairs_of_blocks(q_fields, k_fields, case.queries, case.keys)
    arrays = arranged(q, case.queries), arranged(k, case.keys), arranged(v, case.keys)
    attended, log_sum = forward(case, visits(*pairs), *arrays, q_fields, k_fields, _biases(bias, case.keys))
    attended = _restored(attended, q)
    return (attended, log_sum), (q, k, v, q_meta, k_meta, bias, attended, log_sum)


def _attend_backward(case: Case, kept, slopes):
    q, k, v, q_meta, k_meta, bias, attended, log_sum = kept
    d_attended = slopes[0]
    # Who sees nothing has weights of zero by an infinite log-sum-exp.
    log_sum = jnp.where(log_sum > HIDDEN, log_sum, jnp.inf)
    q_fields, k_fields = stacked(q_meta, case.queries), stacked(k_meta, case.keys)
    pairs = pairs_of_blocks(q_fields, k_fields, case.queries, case.keys)
    # sum_k weight * d_weight, without the weights
    slope = jnp.sum(d_attended.astype(jnp.float32) * attended.astype(jnp.float32), axis=-1, keepdims=True)
    slope = _laid(slope, case.queries)[..., 0].reshape(log_sum.shape)
    arguments = (
        arranged(q, case.queries), arranged(k, case.keys), arranged(v, case.keys),
        q_fields, k_fields, _biases(bias, case.keys), arranged(d_attended, case.queries), log_sum, slope,
    )  # fmt: skip
    d_q = d_queries(case, visits(*pairs), *arguments)
    d_k, d_v = d_keys_values(case, visits(*(x.swapaxes(1, 2) for x in pairs)), *arguments)
    return _restored(d_q, q), _restored(d_k, k), _restored(d_v, v), None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _biases(bias: Array, block: int) -> Array:
    """The keys' bias `[b, 1, n]`, padded to whole blocks."""
    return padded(bias, 1, block)[:, None]


def _laid(x: Array, block: int) -> Array:
    """`x [b, n, h, d]` as `[b, h, n, d]`, with zeros up to whole blocks."""
    return padded(x, 1, block).swapaxes(1, 2)


def arranged(x: Array, block: int) -> Array:
    """As `_laid`, d padded to whole lanes (which a TPU's memory does in any case)."""
    return _laid(padded(x, 3, LANES), block)


def _restored(x: Array, like: Array) -> Array:
    """`arranged` taken back, to the shape of `like [b, n, h, d]`."""
    return x[:, :, : like.shape[1], : like.shape[3]].swapaxes(1, 2)
