"""The best tokens of every picture, in their order.

No sort: each picture's threshold, the score of its last token that is kept, is found bit by bit by counting, and the
tokens above it are compacted by a running sum. Measured against the sort: `experiments/bench_select.py`.
Definition: `reference.choose_reference`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from macro.kernels.select.reference import Kept, rank_bits


def choose(scores: Float[Array, "b n"], picture: Int[Array, "b n"], quotas: Int[Array, "b p"], size: int) -> Kept:
    """The `quotas[b, p]` tokens of each picture with the highest scores.

    Args:
        scores: of equal ones the earlier token comes first; NaN is below everything.
        picture: of each token, -1 (or any number that `quotas` has no column for) where it cannot be kept.
        quotas: tokens to keep of each picture; a picture that has fewer keeps them all.
        size: K, static: `quotas.quota_bound` tells one that suffices. Where it does not, the last tokens are lost.

    Returns:
        `Kept`, `[b, size]`: places in rising order, then places that are not valid.

    Raises:
        ValueError: shapes that do not fit together; a size below 1, or below quotas that are known when traced.
    """
    _check(scores, picture, quotas, size)
    # As unsigned numbers, of which 0 is NaN.
    bits = lax.bitcast_convert_type(rank_bits(lax.stop_gradient(scores)), jnp.uint32) ^ jnp.uint32(1 << 31)
    own = picture[:, None, :] == jnp.arange(quotas.shape[1])[:, None]
    place = jnp.arange(scores.shape[1], dtype=jnp.uint32)

    def count(flags: Array) -> Array:
        return jnp.sum(own & flags, axis=2, dtype=jnp.int32)

    def above(threshold: Array) -> Array:
        return bits[:, None, :] >= threshold[:, :, None]

    # The highest threshold that as many tokens reach as are wanted; only those that tie with it may be too many.
    threshold = _greatest(32, quotas.shape, lambda x: count(above(x)) >= quotas)
    better = own & (bits[:, None, :] > threshold[:, :, None])
    ties = own & (bits[:, None, :] == threshold[:, :, None])
    spare = quotas - count(better)

    def last_tie():
        width = scores.shape[1].bit_length()
        return _greatest(width, quotas.shape, lambda x: count(ties & (place < x[:, :, None])) <= spare)

    # Scores seldom tie, and where they do all may be wanted: a third of the counting is then left out.
    every = jnp.full(quotas.shape, scores.shape[1], jnp.uint32)
    end = lax.cond(jnp.any(count(ties) > spare), last_tie, lambda: every)
    kept = jnp.any(better | (ties & (place < end[:, :, None])), axis=1)
    return compacted(kept, size)


def compacted(kept: Array, size: int) -> Kept:
    """The first `size` places of each row that are kept, in order."""
    so_far = jnp.cumsum(kept, axis=1, dtype=jnp.int32)
    wanted = jnp.arange(1, size + 1, dtype=jnp.int32)
    indices = jax.vmap(lambda row: jnp.searchsorted(row, wanted))(so_far).astype(jnp.int32)
    valid = wanted <= so_far[:, -1:]
    return Kept(jnp.where(valid, indices, 0), valid)


def _greatest(width: int, shape: tuple, holds) -> Array:
    """The greatest number of so many bits for which a monotone condition holds, 0 where it never does."""

    def step(at, found):
        bit = jnp.uint32(1) << (width - 1 - at).astype(jnp.uint32)
        return jnp.where(holds(found | bit), found | bit, found)

    return lax.fori_loop(0, width, step, jnp.zeros(shape, jnp.uint32))


def _check(scores, picture, quotas, size: int) -> None:
    if scores.ndim != 2 or scores.shape != picture.shape:
        raise ValueError(f"choose: scores {scores.shape} and picture {picture.shape} must both be [b, n]")
    if quotas.ndim != 2 or quotas.shape[0] != scores.shape[0]:
        raise ValueError(f"choose: quotas {quotas.shape} must be [b, pictures] with {scores.shape[0]} rows")
    if size < 1:
        raise ValueError(f"choose: size={size} keeps nothing")
    if any(isinstance(x, jax.core.Tracer) for x in (picture, quotas)):
        return
    counts = np.sum(np.asarray(picture)[:, None, :] == np.arange(quotas.shape[1])[:, None], axis=2)
    most = int(np.max(np.sum(np.minimum(counts, np.asarray(quotas)), axis=1), initial=0))
    if most > size:
        raise ValueError(f"choose: size={size} is below the {most} tokens that the quotas of a row come to")
