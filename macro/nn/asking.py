"""Asking layers about pictures' tokens on the way: who looks at them, and how much.

    A[t, u] = mean over heads of softmax(q_t . k_u / sqrt(d))       weight of token u for query t
    asked   = [sum over text tokens t of A[t, u], sum over tokens t of other pictures of A[t, u]]

or, for the rivals that look at scores before the softmax, [sum over the sentence's text tokens t of mean over heads of
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

from macro.kernels.token_selection.api import attention_received


@flax.struct.dataclass
class Asking:
    """What to find out in one pass through the layers.

    Attributes:
        q_picture: int32 `[rows, n]` number of the picture that a query belongs to; -1: text, less: does not count.
        k_pictures: the same for each set of keys.
        layers: numbers of the layers that are asked.
        rows, step: how many rows of the new tokens look: the first, and every `step`-th after it. Their keys are as
            many, the first ones of each set.
        keys: which sets of keys are asked about: 0 those of the new tokens themselves, else the number of a cache.
        softmax: weights; otherwise scores.
    """

    q_picture: Any
    k_pictures: Any
    layers: tuple = flax.struct.field(pytree_node=False)
    rows: int = flax.struct.field(pytree_node=False)
    step: int = flax.struct.field(pytree_node=False)
    keys: tuple = flax.struct.field(pytree_node=False)
    softmax: bool = flax.struct.field(pytree_node=False)

    def layer_flags(self, layers: int) -> Bool[Array, " layers"]:
        """Which of all layers are asked."""
        return jnp.zeros(layers, bool).at[jnp.asarray(self.layers)].set(True)


def asked_of(
    asking: Asking,
    chosen: Bool[Array, ""],
    q: Float[Array, "b nq h d"],
    log_sum: Float[Array, "b nq h"],
    meta: dict,
    keys: Sequence[tuple[Array, dict]],
) -> tuple[Float[Array, "rows 2 _"], ...]:
    """What one layer answers for each set of keys; zeros, without any work, where it is not `chosen`."""
    def first(x: Array, step: int) -> Array:
        # Slices, and none at all where every row looks: an index would send all rows to every device.
        return x if x.shape[0] == asking.rows else x[: asking.rows * step : step]

    sets = [jax.tree.map(lambda x: first(x, 1), keys[number]) for number in asking.keys]
    looking, log_sum, q_meta = jax.tree.map(lambda x: first(x, asking.step), (q, log_sum, meta))

    def answer(k, k_meta, k_picture):
        if asking.softmax:
            return attention_received(looking, k, log_sum, q_meta, k_meta, asking.q_picture, k_picture)
        texts = jnp.where(asking.q_picture == -1, q_meta["sample"], -1)
        return _scores(looking, k, texts, k_meta["sample"])

    def answers():
        return tuple(answer(*each, picture) for each, picture in zip(sets, asking.k_pictures, strict=True))

    def silence():
        return tuple(jnp.zeros((asking.rows, 2, k.shape[1])) for k, _ in sets)

    return jax.lax.cond(chosen, answers, silence)


def _scores(q: Array, k: Array, q_sample: Array, k_sample: Array) -> Float[Array, "rows 2 nk"]:
    """Scores summed over the queries of a key's sample (-1: none of any): those of their sum, as scores are linear."""
    mean = jnp.mean(rearrange(q.astype(jnp.float32), "b n (g r) d -> b n r g d", g=k.shape[2]), axis=2) / k.shape[2]

    def of_row(mean, k, q_sample, k_sample):
        n = len(q_sample)  # at least as many as samples; who is of none goes beyond and is dropped
        total = jax.ops.segment_sum(mean, jnp.where(q_sample < 0, n, q_sample), n)
        found = jnp.einsum("ngd,ngd->n", total[jnp.clip(k_sample, 0, n - 1)], k.astype(jnp.float32))
        return jnp.where(k_sample >= 0, found, 0.0)

    scores = jax.vmap(of_row)(mean, k, q_sample, k_sample) * q.shape[-1] ** -0.5
    return jnp.stack([scores, jnp.zeros_like(scores)], axis=1)
