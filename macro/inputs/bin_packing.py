"""Filling rows: vector bin packing of samples that each need several things at once.

A row has a fixed capacity of text, vision and latent tokens, of samples and of image slots. Given what
each sample needs, `pack` puts all of them into as few rows as it can. The fewest rows conceivable are

    R = max over kinds d of ceil( sum_i need[i, d] / capacity[d] )

so R rows are opened at once, and the samples, biggest first, each go where they leave all loads most even,
even if a row overflows. Then samples are moved and exchanged, always so that the sum of squared overflows
falls most, until nothing overflows. If that gets stuck, it starts again with more rows.
Balanced rows, unlike first fit, keep all kinds near full together. Read next: `macro/inputs/packing.py`.
"""

import numpy as np
from jaxtyping import Float, Int

from macro.utils.errors import UserError

_BALANCE_POWER = 6  # the power of loads that is kept small: the higher, the more only the fullest kind counts
_MAX_TRIED = 8  # overflowing rows that are tried for an exchange before giving up


def pack(
    needs: Int[np.ndarray, "n d"], capacities: Int[np.ndarray, "d"], names: list[str], kinds: list[str]
) -> list[list[int]]:
    """Puts every sample into exactly one row.

    Args:
        needs: what each sample takes of each kind. capacities: what a row has of it.
        names: how to call each sample in errors; kinds: how to call each kind.

    Returns:
        Rows of sample numbers, each row's in rising order. The same input gives the same rows.

    Raises:
        UserError: a sample that does not fit an empty row.
    """
    too_big = np.argwhere(needs > capacities)
    if len(too_big):
        i, d = too_big[0]
        raise UserError(
            f"{names[i]} needs {needs[i, d]} {kinds[d]}, but a row holds {capacities[d]}; "
            f"raise packing.{kinds[d].split()[0]} or leave the sample out"
        )
    shares = needs / np.maximum(capacities, 1)
    order = np.argsort(-(shares.max(1) + 0.1 * shares.sum(1)), kind="stable")
    rows = max(1, int(np.ceil(shares.sum(0).max() - 1e-9)))
    while True:
        placed, loads = _greedy_init(shares, order, rows)
        if _local_search(shares, placed, loads):
            groups = [np.flatnonzero(placed == row).tolist() for row in range(rows)]
            return [group for group in groups if group]
        rows += max(1, rows // 64)


def _overflow(loads: Float[np.ndarray, "*rows d"]) -> Float[np.ndarray, "*rows"]:
    return np.square(np.maximum(loads - 1 - 1e-9, 0)).sum(-1)


def _greedy_init(
    shares: Float[np.ndarray, "n d"], order: Int[np.ndarray, "n"], rows: int
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "rows d"]]:
    """A first row for every sample, and the rows' loads; some may overflow."""
    loads = np.zeros((rows, shares.shape[1]))
    placed = np.zeros(len(shares), np.int64)
    for i in order:
        after = loads + shares[i]
        cost = (after**_BALANCE_POWER - loads**_BALANCE_POWER).sum(1) + 100 * (_overflow(after) - _overflow(loads))
        placed[i] = np.argmin(cost)
        loads[placed[i]] += shares[i]
    return placed, loads


def _local_search(
    shares: Float[np.ndarray, "n d"], placed: Int[np.ndarray, "n"], loads: Float[np.ndarray, "rows d"]
) -> bool:
    """Exchanges samples, in place, until no row overflows; False if no exchange helps any more."""
    n, rows = len(shares), len(loads)
    # An empty partner in each row stands for moving a sample there without anything in return.
    partners = np.concatenate([shares, np.zeros((rows, shares.shape[1]))])
    home = np.concatenate([placed, np.arange(rows)])
    over = _overflow(loads)
    while over.any():
        for here in np.argsort(-over, kind="stable")[:_MAX_TRIED]:
            mine = np.flatnonzero(placed == here)
            leaving = shares[mine][:, None]
            change = (
                _overflow(loads[here] - leaving + partners)
                + _overflow(loads[home] - partners + leaving)
                - (over[here] + over[home])
            )
            change[:, home == here] = 0
            if change.min() < -1e-12:
                break
        else:
            return False
        which, j = np.unravel_index(np.argmin(change), change.shape)
        i, there = mine[which], home[j]
        placed[i] = home[i] = there
        if j < n:
            placed[j] = home[j] = here
        loads[here] += partners[j] - shares[i]
        loads[there] += shares[i] - partners[j]
        over[[here, there]] = _overflow(loads[[here, there]])
    return True
