"""The number of tokens that each image keeps: a share of its own tokens, or of a packed sequence's budget.

In integers throughout, so that .07 of 100 tokens is 7 and never 8, on a host and under `jit` alike.
Read next: `api.select_top_k`, which takes them.
"""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

# A share is taken as a fraction with a denominator of at most this: exact up to six decimals.
_FINEST = 10**6


def token_budgets(counts, keep: float | None = None, budget: int | None = None, floor: int = 1):
    """Tokens to keep of each image; exactly one of `keep` and `budget` is given.

    Args:
        counts: int32 `[b, images]` tokens of each image, 0 where there is none. A numpy array gives a numpy array.
        keep: the share of each image, in (0, 1]: `ceil(keep * n)`.
        budget: tokens of a packed sequence, apportioned by the counts with largest remainders (ties: the earlier
            image); an image whose share is below `floor` gets `floor`, and the others share the rest. A packed
            sequence with fewer tokens keeps them all.
        floor: the minimum for each image, or all tokens of an image with fewer.

    Returns:
        int32 `[b, images]`, never more than `counts`; with a budget each packed sequence's sum is
        `min(budget, tokens)`. Counts may sum to half a million.

    Raises:
        ValueError: naming the argument that is out of range.
    """
    if counts.ndim != 2:
        raise ValueError(f"token_budgets: counts must be [b, images], but has shape {counts.shape}")
    _check(counts.shape[1], keep, budget, floor)
    xp = jnp if isinstance(counts, jax.Array) else np
    counts = counts.astype(xp.int32)
    least = xp.minimum(floor, counts)
    if keep is not None:
        share = _fraction(keep)
        whole, rest = _product(counts, share.numerator, share.denominator)
        return xp.clip(whole + (rest > 0), least, counts).astype(xp.int32)
    return _dealt(xp, counts, least, budget).astype(xp.int32)


def token_budget_bound(
    n: int, images: int, keep: float | None = None, budget: int | None = None, floor: int = 1
) -> int:
    """The most tokens that `token_budgets` can return for `images` images with `n` tokens in total."""
    _check(images, keep, budget, floor)
    if budget is not None:
        return min(n, budget)
    share = _fraction(keep)
    # Every image keeps its share and less than `floor` more.
    return min(n, -(-share.numerator * n // share.denominator) + images * floor - 1)


def _check(images: int, keep: float | None, budget: int | None, floor: int) -> None:
    if (keep is None) == (budget is None):
        raise ValueError(f"token_budgets: exactly one of keep and budget, got keep={keep} and budget={budget}")
    if floor < 1:
        raise ValueError(f"token_budgets: floor={floor}, but no image may vanish: at least 1")
    if keep is not None and not 0 < keep <= 1:
        raise ValueError(f"token_budgets: keep={keep} is no share in (0, 1]")
    if budget is not None and budget < images * floor:
        per = "one token" if floor == 1 else f"floor={floor} tokens"
        raise ValueError(f"token_budgets: budget={budget} for {images} images is a budget below {per} per image")


def _fraction(keep: float) -> Fraction:
    return max(Fraction(str(keep)).limit_denominator(_FINEST), Fraction(1, _FINEST))


def _product(n, numerator, denominator):
    """`n * numerator / denominator` as quotient and remainder, within 32 bits."""
    high, rest = n // 256 * numerator // denominator, n // 256 * numerator % denominator
    low = rest * 256 + n % 256 * numerator
    return high * 256 + low // denominator, low % denominator


def _dealt(xp, counts, least, budget: int):
    """A budget in proportion to `counts`, at least `least` each."""

    def total(x):
        return xp.sum(x, axis=-1, keepdims=True)

    budget = xp.minimum(budget, total(counts))
    fixed = xp.zeros(counts.shape, bool)  # gets `least`
    # Raising one image to `least` lowers the others, which may then fall below theirs: at most once each.
    for _ in range(counts.shape[1]):
        left, among = budget - total(xp.where(fixed, least, 0)), xp.where(fixed, 0, counts)
        whole, rest = _product(among, left, xp.maximum(total(among), 1))
        fixed = fixed | (whole < least)
    left, among = budget - total(xp.where(fixed, least, 0)), xp.where(fixed, 0, counts)
    whole, rest = _product(among, left, xp.maximum(total(among), 1))
    # Rank in the order of remainders.
    number = xp.arange(counts.shape[1])
    larger = rest[..., None, :] > rest[..., :, None]
    earlier = (rest[..., None, :] == rest[..., :, None]) & (number[None, :] < number[:, None])
    before = xp.sum(larger | earlier, axis=-1)
    spare = left - total(whole)
    return xp.where(fixed, least, whole + (before < spare))
