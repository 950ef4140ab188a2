"""Attention over mixed, packed sentences: the one entry that the model calls.

Who sees whom follows from the tokens' metadata (`macro/sentence/sight.py`), never from a mask that the caller
makes. Read next: `reference.py`, which defines the result.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jaxtyping import Array, Float

from macro.kernels.attention.blocked import attention_blocked
from macro.kernels.attention.reference import attention_reference

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
    large = q.shape[1] * k.shape[1] >= _WORTH_A_LOOP
    backend = attention_blocked if large and jax.default_backend() == "cpu" else attention_reference
    return backend(q, k, v, q_meta, k_meta)
