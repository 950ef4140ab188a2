"""An attention probe: how much attention each image token receives in some layers, measured while they run.

    A[t, u] = mean over heads of softmax(q_t . k_u / sqrt(d))       weight of token u for query t
    found   = [sum over text tokens t of A[t, u], sum over tokens t of other images of A[t, u]]

or, for the methods that use scores before the softmax, [sum over the sentence's text tokens t of mean over heads of
q_t . k_u / sqrt(d), 0], whether or not t attends to u. Used by `macro/models/token_selection.py`.
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
class AttentionProbe:
    """What to measure in one pass through the layers.

    Attributes:
        query_images: int32 `[rows, n]` number of the image that a query belongs to; -1: text, below -1: not counted.
        key_images: the same for each set of keys.
        layers: numbers of the probed layers.
        rows, step: number of probed rows of queries, the first and every `step`-th after it. Each set of keys has the
            same number of probed rows, its first ones.
        keys: which sets of keys are measured: 0 for those of the new tokens themselves, else the number of a cache.
        softmax: whether to measure attention weights rather than scores.
    """

    query_images: Any
    key_images: Any
    layers: tuple = flax.struct.field(pytree_node=False)
    rows: int = flax.struct.field(pytree_node=False)
    step: int = flax.struct.field(pytree_node=False)
    keys: tuple = flax.struct.field(pytree_node=False)
    softmax: bool = flax.struct.field(pytree_node=False)

    def layer_flags(self, layers: int) -> Bool[Array, " layers"]:
        """For each layer, whether it is probed."""
        return jnp.zeros(layers, bool).at[jnp.asarray(self.layers)].set(True)


def probe_layer(
    probe: AttentionProbe,
    probed: Bool[Array, ""],
    q: Float[Array, "b nq h d"],
    lse: Float[Array, "b nq h"],
    meta: dict,
    keys: Sequence[tuple[Array, dict]],
) -> tuple[Float[Array, "rows 2 _"], ...]:
    """One layer's measurement for each set of keys; zeros, without any computation, where it is not `probed`."""

    def first(x: Array, step: int) -> Array:
        # Slices, or none where every row is probed: an index array would send all rows to every device.
        return x if x.shape[0] == probe.rows else x[: probe.rows * step : step]

    sets = [jax.tree.map(lambda x: first(x, 1), keys[number]) for number in probe.keys]
    queries, lse, q_meta = jax.tree.map(lambda x: first(x, probe.step), (q, lse, meta))

    def measure(k, k_meta, key_image):
        if probe.softmax:
            return attention_received(queries, k, lse, q_meta, k_meta, probe.query_images, key_image)
        texts = jnp.where(probe.query_images == -1, q_meta["segment_ids"], -1)
        return _scores(queries, k, texts, k_meta["segment_ids"])

    def measured():
        return tuple(measure(*each, images) for each, images in zip(sets, probe.key_images, strict=True))

    def nothing():
        return tuple(jnp.zeros((probe.rows, 2, k.shape[1])) for k, _ in sets)

    return jax.lax.cond(probed, measured, nothing)


def _scores(q: Array, k: Array, q_sample: Array, k_sample: Array) -> Float[Array, "rows 2 nk"]:
    """Scores summed over the queries of a key's sample (-1: of none): computed from the queries' sum, by linearity."""
    mean = jnp.mean(rearrange(q.astype(jnp.float32), "b n (g r) d -> b n r g d", g=k.shape[2]), axis=2) / k.shape[2]

    def of_row(mean, k, q_sample, k_sample):
        n = len(q_sample)  # at least the number of samples; tokens of none get an index beyond it and are dropped
        total = jax.ops.segment_sum(mean, jnp.where(q_sample < 0, n, q_sample), n)
        found = jnp.einsum("ngd,ngd->n", total[jnp.clip(k_sample, 0, n - 1)], k.astype(jnp.float32))
        return jnp.where(k_sample >= 0, found, 0.0)

    scores = jax.vmap(of_row)(mean, k, q_sample, k_sample) * q.shape[-1] ** -0.5
    return jnp.stack([scores, jnp.zeros_like(scores)], axis=1)
