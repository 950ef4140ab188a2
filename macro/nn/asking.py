"""Asking layers about pictures' tokens on the way: who looks at them, and how much.

    A[t, u] = mean over heads of softmax(q_t . k_u / sqrt(d))       weight of token u for query t
    asked   = [sum over text tokens t of A[t, u], sum over tokens t of other pictures of A[t, u]]

or, for the rivals that look at scores before the softmax, [sum over text tokens t of mean over heads of
q_t . k_u / sqrt(d), 0], whether t sees u or not. What becomes of it: `macro/models/selection.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from macro.kernels.select.api import column_sums


@flax.struct.dataclass
class Asking:
    """What to find out in one pass through the layers.

    Attributes:
        q_picture, k_picture: int32 `[rows, n]` number of the picture that a query, a key belongs to, -1: text.
        layers: numbers of the layers that are asked.
        rows: those of the new tokens whose queries look; their keys are as many, the first ones of `keys`.
        keys: 0 for the keys of the new tokens themselves, else the number of the cache, from 1.
        softmax: weights; otherwise scores.
    """

    q_picture: Any
    k_picture: Any
    layers: tuple = flax.struct.field(pytree_node=False)
    rows: tuple = flax.struct.field(pytree_node=False)
    keys: int = flax.struct.field(pytree_node=False)
    softmax: bool = flax.struct.field(pytree_node=False)

    def layer_flags(self, layers: int) -> Bool[Array, layers]:
        """Which of all layers are asked."""
        return jnp.zeros(layers, bool).at[jnp.asarray(self.layers)].set(True)


def asked_of(
    asking: Asking,
    chosen: Bool[Array, ""],
    q: Float[Array, "b nq h d"],
    log_sum: Float[Array, "b nq h"],
    meta: dict,
    keys: Sequence[tuple[Array, dict]],
) -> Float[Array, "rows 2 nk"]:
    """What one layer answers; zeros, without any work, where it is not `chosen`."""
    rows = jnp.asarray(asking.rows)
    k, k_meta = jax.tree.map(lambda x: x[: len(asking.rows)], keys[asking.keys])

    def answer():
        asked = (q[rows], k, log_sum[rows], {name: x[rows] for name, x in meta.items()}, k_meta)
        if asking.softmax:
            return column_sums(*asked, asking.q_picture, asking.k_picture)
        texts = (asking.q_picture < 0) & (asked[3]["sample"] >= 0)
        return _scores(q[rows], k, texts)

    return jax.lax.cond(chosen, answer, lambda: jnp.zeros((len(asking.rows), 2, k.shape[1])))


def _scores(q: Array, k: Array, texts: Array) -> Float[Array, "rows 2 nk"]:
    """Scores summed over the queries of texts: those of their sum, since a score is linear in its query."""
    total = jnp.einsum("bnhd,bn->bhd", q.astype(jnp.float32), texts.astype(jnp.float32))
    total = jnp.mean(rearrange(total, "b (g r) d -> b r g d", g=k.shape[2]), axis=1) / k.shape[2]
    scores = jnp.einsum("bgd,bngd->bn", total, k.astype(jnp.float32)) * q.shape[-1] ** -0.5
    return jnp.stack([scores, jnp.zeros_like(scores)], axis=1)
