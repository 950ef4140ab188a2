"""Attention over mixed, packed sentences: the model's single entry point.

Which query attends to which key follows from token metadata (`macro/sentence/attention_mask.py`), never from a mask
made by the caller. On a mesh every device computes attention of its own packed sequences, heads and queries over all
keys of these sequences: where tokens are sharded, keys and values are gathered, which grouped heads keep small.
Read next: `reference.py`, which defines the result.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from macro.kernels.attention import pallas_gpu, pallas_tpu
from macro.kernels.attention.blocked import attention_blocked
from macro.kernels.attention.reference import attention_reference
from macro.parallel.sharding import activation_spec, current_mesh_shape, platform
from macro.sentence.attention_mask import MASK_FIELDS


class Backend(NamedTuple):
    """One backend of attention.

    Attributes:
        run: arguments and results as `attention_with_lse`.
        unsupported_reason: (q, k) -> why the backend does not support them; None where it does.
    """

    run: Callable
    unsupported_reason: Callable[..., str | None] = lambda *given: None


# Slow on accelerators, as it computes blocks sequentially, but it supports everything, with memory linear in n. Where
# no kernel is supported, `reference.py` would need 4 n^2 bytes a head: 4 GB at 32,768 tokens.
_ANYWHERE = Backend(attention_blocked)
# Backends by platform: the first that supports the arrays is used. Elsewhere `reference.py`.
BACKENDS: dict[str, tuple[Backend, ...]] = {
    "cpu": (_ANYWHERE,),
    "gpu": (Backend(pallas_gpu.attention_gpu, pallas_gpu.unsupported_reason), _ANYWHERE),
    "tpu": (Backend(pallas_tpu.attention_tpu, pallas_tpu.unsupported_reason), _ANYWHERE),
}
# Below this many scores per head the loop over blocks costs more than the dense tensor (decoding).
_WORTH_A_LOOP = 1 << 16
# The same holds for so few queries on a CPU, for any number of keys (denoising after many images): 66 queries of
# 3,328 keys took 10 ms by `reference.py` and 26 in blocks, 264 queries 54 and 56.
_FEW_QUERIES = {"cpu": 256}


def attention(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    v: Float[Array, "b nk kv d"],
    q_meta: Mapping,
    k_meta: Mapping,
    k_bias: Float[Array, "b nk"] | None = None,
) -> Float[Array, "b nq h d"]:
    """Softmax attention under the attention mask, scaled by 1/sqrt(d), grouped heads (h a multiple of kv).

    Args:
        q, k, v: queries, keys and values; query head `i` uses key head `i // (h // kv)`.
        q_meta, k_meta: `segment_ids`, `token_index`, `block_id`, `mask_mode`, int32 `[b, nq]` and `[b, nk]`.
        k_bias: added to every score of a key: log 2 makes the key count twice. No gradient flows to it.

    Returns:
        Attended values in the dtype of `q`; zeros for a query without visible keys (padding).

    Raises:
        ValueError: incompatible shapes, at trace time.
    """
    return attention_with_lse(q, k, v, q_meta, k_meta, k_bias)[0]


def attention_with_lse(
    q: Float[Array, "r nq h d"],
    k: Float[Array, "b nk kv d"],
    v: Float[Array, "b nk kv d"],
    q_meta: Mapping,
    k_meta: Mapping,
    k_bias: Float[Array, "b nk"] | None = None,
) -> tuple[Float[Array, "r nq h d"], Float[Array, "r nq h"]]:
    """As `attention`, together with the log-sum-exp (lse) of each query's scores.

    With the lse, attention over several sets of keys can be merged (`merge_partial_attention`), and a weight is
    exp(score - lse). It is float32, `reference.MASK_VALUE` for a query without visible keys, and no gradient flows
    through it. Queries may have several consecutive rows for each row of keys: these share its keys, which are read
    once.
    """
    shared = q.shape[0] // k.shape[0]
    if shared > 1 and _rows_lie(q) != _rows_lie(k):  # rows that are sharded over devices are not merged
        k, v, k_meta, k_bias = jax.tree.map(lambda x: jnp.repeat(x, shared, axis=0), (k, v, dict(k_meta), k_bias))
    elif shared > 1:
        fold, unfold = "(b c) n ... -> b (c n) ...", "b (c n) ... -> (b c) n ..."
        together = rearrange(q, fold, b=k.shape[0]), k, v
        metas = {name: rearrange(q_meta[name], fold, b=k.shape[0]) for name in MASK_FIELDS}, k_meta
        attended = attention_with_lse(*together, *metas, k_bias)
        return tuple(rearrange(x, unfold, n=q.shape[1]) for x in attended)
    check_inputs("attention", q, k, v, q_meta, k_meta, k_bias)
    q_meta, k_meta = ({name: meta[name] for name in MASK_FIELDS} for meta in (q_meta, k_meta))
    sizes = current_mesh_shape()
    if not sizes:
        return _on_one_device(q, k, v, q_meta, k_meta, k_bias)
    queries, keys = on_mesh(sizes, q, k)
    metas = [{name: PartitionSpec(*lies[:2]) for name in MASK_FIELDS} for lies in (queries, keys)]
    bias = None if k_bias is None else PartitionSpec(*keys[:2])
    attend = jax.shard_map(
        _on_one_device,
        in_specs=(queries, keys, keys, *metas, bias),
        out_specs=(queries, PartitionSpec(*queries[:3])),
        check_vma=False,
    )
    return attend(q, k, v, q_meta, k_meta, k_bias)


def on_mesh(sizes: Mapping[str, int], q: Array, k: Array) -> tuple[PartitionSpec, PartitionSpec]:
    """Shardings for attention on a mesh: of queries `[b, nq, h, d]`, and of keys, whose tokens are not sharded."""
    queries = activation_spec(sizes, q.shape, "batch", "tokens", "heads", "head_dim")
    keys = activation_spec(sizes, k.shape, "batch", None, "kv_heads", "head_dim")
    if queries[2] != keys[2]:  # a head's group of queries stays with its key
        queries, keys = (PartitionSpec(*lies[:2], None, None) for lies in (queries, keys))
    return queries, keys


def _rows_lie(x: Array) -> PartitionSpec | None:
    """The mesh axes over which the rows of `x` are sharded."""
    return activation_spec(current_mesh_shape(), x.shape[:1], "batch") if current_mesh_shape() else None


def merge_partial_attention(
    parts: Sequence[tuple[Float[Array, "b nq h d"], Float[Array, "b nq h"]]],
) -> tuple[Float[Array, "b nq h d"], Float[Array, "b nq h"]]:
    """`attention_with_lse` over all keys from the results over disjoint sets of keys: means weighted by softmax(lse).

    Gradients through several parts ignore the dependence of the weights on q and k, since none flows through an lse:
    use it only without training through the sets, as with a KV cache.
    """
    if len(parts) == 1:
        return parts[0]
    attended, lses = (jnp.stack(x) for x in zip(*parts, strict=True))
    shares = jax.nn.softmax(lses, axis=0)[..., None]
    mean = jnp.sum(attended.astype(jnp.float32) * shares, axis=0).astype(attended.dtype)
    # For queries without visible keys in any part it remains MASK_VALUE, which absorbs log(parts).
    return mean, jax.nn.logsumexp(lses, axis=0)


def select_backend(op: str, backends: Sequence[Backend], otherwise: Callable, *given) -> Callable:
    """The first backend that supports `given`, else `otherwise`; warns once about each backend that is skipped."""
    for backend in backends:
        reason = backend.unsupported_reason(*given)
        if reason is None:
            return backend.run
        warn_once(f"{op}: {backend.run.__name__} cannot run this, the next in order does: {reason}")
    return otherwise


@functools.cache
def warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def _on_one_device(q, k, v, q_meta, k_meta, k_bias):
    few = q.shape[1] <= _FEW_QUERIES.get(platform(), 0)
    large = q.shape[1] * k.shape[1] >= _WORTH_A_LOOP and not few
    backends = BACKENDS.get(platform(), ()) if large else ()
    return select_backend("attention", backends, attention_reference, q, k)(q, k, v, q_meta, k_meta, k_bias)


def check_inputs(op: str, q, k, v, q_meta, k_meta, k_bias) -> None:
    """Raises ValueError for shapes that would otherwise broadcast silently or fail deep inside a kernel."""
    (b, nq, h, d), (kb, nk, kv, kd) = q.shape, k.shape
    if k.shape != v.shape:
        raise ValueError(f"{op}: k has shape {k.shape}, but v {v.shape}")
    if (b, d) != (kb, kd):
        raise ValueError(f"{op}: q {q.shape} and k {k.shape} must have as many rows and as wide heads")
    if h % kv:
        raise ValueError(f"{op}: {h} heads of q are no multiple of the {kv} of k")
    for side, meta, shape in (("q_meta", q_meta, (b, nq)), ("k_meta", k_meta, (b, nk))):
        for name in MASK_FIELDS:
            if name not in meta or meta[name].shape != shape:
                found = meta[name].shape if name in meta else "missing"
                raise ValueError(f"{op}: {side}[{name!r}] is {found}, but its tokens are {shape}")
    if k_bias is not None and k_bias.shape != (b, nk):
        raise ValueError(f"{op}: k_bias has shape {k_bias.shape}, but k's tokens are {(b, nk)}")
