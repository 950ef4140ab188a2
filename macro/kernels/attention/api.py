"""Attention over mixed, packed sentences: the one entry that the model calls.

Who sees whom follows from the tokens' metadata (`macro/sentence/sight.py`), never from a mask that the caller
makes. On a mesh every device attends for its own rows, heads and queries, to all keys of these rows: where tokens are
divided, keys and values, which grouped heads keep small, are what is sent.
Read next: `reference.py`, which defines the result.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from macro.kernels.attention.blocked import attention_blocked
from macro.kernels.attention.pallas_tpu import attention_tpu
from macro.kernels.attention.reference import attention_reference
from macro.parallel.rules import current, platform, spec
from macro.sentence.sight import FIELDS

# What runs where; elsewhere the definition.
BACKENDS = {"cpu": attention_blocked, "tpu": attention_tpu}
# Below this many scores per head the loop over blocks costs more than the dense tensor (decoding, denoising).
_WORTH_A_LOOP = 1 << 16


def attention(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    v: Float[Array, "b nk kv d"],
    q_meta: Mapping,
    k_meta: Mapping,
) -> Float[Array, "b nq h d"]:
    """Softmax attention under the rule of sight, scaled by 1/sqrt(d), grouped heads (h a multiple of kv).

    Args:
        q, k, v: queries, keys and values; query head `i` uses key head `i // (h // kv)`.
        q_meta, k_meta: `sample`, `order`, `span`, `mode`, int32 `[b, nq]` and `[b, nk]`.

    Returns:
        Attended values in the dtype of `q`. A token that sees nothing (padding) gets zeros.
    """
    sizes = current()
    if not sizes:
        return _on_one_device(q, k, v, q_meta, k_meta)
    q_meta, k_meta = ({name: meta[name] for name in FIELDS} for meta in (q_meta, k_meta))
    queries = spec(sizes, q.shape, "batch", "tokens", "heads", "head_dim")
    keys = spec(sizes, k.shape, "batch", None, "kv_heads", "head_dim")
    if queries[2] != keys[2]:  # a head's group of queries stays with its key
        queries, keys = (PartitionSpec(*lies[:2], None, None) for lies in (queries, keys))
    metas = [{name: PartitionSpec(*lies[:2]) for name in FIELDS} for lies in (queries, keys)]
    attend = jax.shard_map(_on_one_device, in_specs=(queries, keys, keys, *metas), out_specs=queries, check_vma=False)
    return attend(q, k, v, q_meta, k_meta)


def _on_one_device(q, k, v, q_meta, k_meta):
    large = q.shape[1] * k.shape[1] >= _WORTH_A_LOOP
    backend = BACKENDS.get(platform(), attention_reference) if large else attention_reference
    return backend(q, k, v, q_meta, k_meta)
