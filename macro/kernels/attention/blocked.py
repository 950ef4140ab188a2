"""Attention on a CPU in blocks that a core's cache holds, visiting only those in which a query sees a key.

Packed sequences hold several sentences, so most pairs of tokens are masked. Tokens are first sorted by
(sample, order); then each block of queries sees one contiguous run of key blocks, whose ends follow from the
metadata. Softmax runs along that run (Milakov & Gimelshein, arXiv 1805.02867); the backward pass computes the
weights again from the kept log-sum-exp (Dao et al., arXiv 2205.14135, algorithm 4). Memory grows with n.

Definition: `reference.py`. Measured: `experiments/bench_attention.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jaxtyping import Array, Float

from macro.kernels.attention.block_mask import block_at, sort_order, sorted_blocks
from macro.kernels.attention.reference import MASK_VALUE
from macro.sentence.attention_mask import MASK_FIELDS, mask_mod

QUERIES, KEYS = 64, 64  # tokens of a block; measured best of 32 to 256
_BIAS = "bias"  # of keys, in addition to their metadata


def attention_blocked(q, k, v, q_meta: Mapping, k_meta: Mapping, k_bias=None) -> tuple[Array, Array]:
    """Same values as `attention_reference`; arguments and shapes as in `api.attention_with_lse`."""
    dtype = q.dtype
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    q_order, k_order = sort_order(q_meta), sort_order(k_meta)
    bias = jnp.zeros(k.shape[:2]) if k_bias is None else lax.stop_gradient(k_bias)
    q_meta = {name: sorted_blocks(x, q_order, QUERIES) for name, x in q_meta.items()}
    k_meta = {name: sorted_blocks(x, k_order, KEYS) for name, x in (k_meta | {_BIAS: bias}).items()}
    groups, heads = k.shape[2], q.shape[2]
    # Query heads of one key head share an axis with the queries: fewer, larger products.
    scaled = sorted_blocks(q * q.shape[-1] ** -0.5, q_order, QUERIES)
    queries = rearrange(scaled, "b m n (g r) d -> b m g (r n) d", g=groups)
    keys, values = (sorted_blocks(x, k_order, KEYS).swapaxes(2, 3) for x in (k, v))
    attended, lse = lax.map(lambda row: _row(*row), (queries, keys, values, q_meta, k_meta))
    back = jnp.argsort(q_order, axis=1)
    attended = rearrange(attended, "b m g (r n) d -> b (m n) (g r) d", n=QUERIES, r=heads // groups)
    lse = rearrange(lse, "b m g (r n) -> b (m n) (g r)", n=QUERIES, r=heads // groups)
    attended = jnp.take_along_axis(attended, back[:, :, None, None], axis=1).astype(dtype)
    return attended, lax.stop_gradient(jnp.take_along_axis(lse, back[:, :, None], axis=1))


def _mask(q_meta: Mapping, k_meta: Mapping) -> Array:
    """The attention mask `[..., queries, keys]`."""
    q = {name: q_meta[name][..., :, None] for name in MASK_FIELDS}
    k = {name: k_meta[name][..., None, :] for name in MASK_FIELDS}
    return mask_mod(q, k)


def _runs(q_meta: Mapping, k_meta: Mapping) -> tuple[Array, Array]:
    """Per block of queries: the first key block in which it sees a key, and one after the last."""

    def run(block):
        seen = jnp.any(_mask(block, k_meta), axis=(1, 2))
        numbers = jnp.arange(len(seen))
        return jnp.min(jnp.where(seen, numbers, len(seen))), jnp.max(jnp.where(seen, numbers + 1, 0))

    return lax.map(run, q_meta)


def _scores(q: Array, k: Array, q_meta: Mapping, k_meta: Mapping) -> Array:
    """Scores `[groups, heads per group * queries, keys]` of one block of each; MASK_VALUE where masked."""
    scores = jnp.einsum("gqd,gkd->gqk", q, k) + k_meta[_BIAS]
    mask = jnp.tile(_mask(q_meta, k_meta), (q.shape[1] // QUERIES, 1))
    return jnp.where(mask, scores, MASK_VALUE)


@jax.custom_vjp
def _row(
    queries: Float[Array, "m g rq d"],
    keys: Float[Array, "mk g k d"],
    values: Float[Array, "mk g k d"],
    q_meta: Mapping,
    k_meta: Mapping,
) -> tuple[Float[Array, "m g rq d"], Float[Array, "m g rq"]]:
    """Attention of one row and its log-sum-exp, in blocks."""
    return _forward(queries, keys, values, q_meta, k_meta)[0]


def _forward(queries, keys, values, q_meta, k_meta):
    first, end = _runs(q_meta, k_meta)

    def block(arguments):
        q, meta, first, end = arguments

        def step(number, carry):
            top, total, attended = carry
            k, v, k_block = block_at((keys, values, k_meta), number)
            scores = _scores(q, k, meta, k_block)
            new_top = jnp.maximum(top, jnp.max(scores, axis=-1))
            weights = jnp.exp(scores - new_top[..., None])
            shrink = jnp.exp(top - new_top)
            total = total * shrink + jnp.sum(weights, axis=-1)
            return new_top, total, attended * shrink[..., None] + jnp.einsum("gqk,gkd->gqd", weights, v)

        start = jnp.full(q.shape[:2], MASK_VALUE), jnp.zeros(q.shape[:2]), jnp.zeros(q.shape)
        top, total, attended = lax.fori_loop(first, end, step, start)
        seeing = top > MASK_VALUE
        total = jnp.where(seeing, total, 1.0)
        attended = jnp.where(seeing[..., None], attended / total[..., None], 0.0)
        return attended, jnp.where(seeing, top + jnp.log(total), MASK_VALUE)

    attended, lse = lax.map(block, (queries, q_meta, first, end))
    return (attended, lse), (queries, keys, values, q_meta, k_meta, first, end, attended, lse)


def _backward(kept, cotangents):
    queries, keys, values, q_meta, k_meta, first, end, attended, lse = kept
    d_attended = cotangents[0]
    # lse = inf gives weights of zero to queries without visible keys.
    lse = jnp.where(lse > MASK_VALUE, lse, jnp.inf)
    # sum_k weight * d_weight = sum_d d_out * attended
    deltas = jnp.sum(d_attended * attended, axis=-1)

    def block(carry, arguments):
        q, meta, first, end, d_out, lse, delta = arguments

        def step(number, carry):
            d_q, d_keys, d_values = carry
            k, v, k_block = block_at((keys, values, k_meta), number)
            weights = jnp.exp(_scores(q, k, meta, k_block) - lse[..., None])
            d_scores = weights * (jnp.einsum("gqd,gkd->gqk", d_out, v) - delta[..., None])
            d_q = d_q + jnp.einsum("gqk,gkd->gqd", d_scores, k)
            d_keys = d_keys.at[number].add(jnp.einsum("gqk,gqd->gkd", d_scores, q))
            d_values = d_values.at[number].add(jnp.einsum("gqk,gqd->gkd", weights, d_out))
            return d_q, d_keys, d_values

        d_q, *carry = lax.fori_loop(first, end, step, (jnp.zeros(q.shape), *carry))
        return tuple(carry), d_q

    start = jnp.zeros(keys.shape), jnp.zeros(values.shape)
    blocks = queries, q_meta, first, end, d_attended, lse, deltas
    (d_keys, d_values), d_queries = lax.scan(block, start, blocks)
    return d_queries, d_keys, d_values, None, None


_row.defvjp(_forward, _backward)
