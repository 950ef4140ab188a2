"""Vector bin packing: samples that need several kinds of capacity at once, packed into few packed sequences.

A packed sequence has a fixed capacity of text, vision and latent tokens, of samples and of image slots. `pack`
assigns every sample to one of as few packed sequences ("rows" in this file) as it can. A lower bound on their number is

    R = max over kinds d of ceil( sum_i need[i, d] / capacity[d] )

so R rows are opened at once. Each sample, largest first, is assigned to the row where it keeps the loads most even,
even if that row overflows. Local search then moves and swaps samples, each time taking the step that reduces the sum of
squared overflows most, until no row overflows; if it gets stuck, it starts again with more rows.
Unlike first fit, this fills all kinds of capacity evenly. Read next: `macro/inputs/packing.py`.
"""

import numpy as np
from jaxtyping import Float, Int

from macro.utils.errors import UserError

_BALANCE_POWER = 6  # exponent of the loads in the greedy cost: the higher, the more the fullest kind dominates
_MAX_TRIED = 8  # overflowing rows to try a swap for before giving up


def pack(
    needs: Int[np.ndarray, "n d"], capacities: Int[np.ndarray, "d"], names: list[str], kinds: list[str]
) -> list[list[int]]:
    """Assigns every sample to exactly one row.

    Args:
        needs: how much of each kind each sample needs. capacities: how much of each kind a row holds.
        names, kinds: of the samples and of the kinds of capacity, for error messages.

    Returns:
        The sample numbers of each row, in ascending order. The result is deterministic.

    Raises:
        UserError: a sample does not fit into an empty row.
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
    """An initial row for every sample, and the loads of the rows; some may overflow."""
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
    """Moves and swaps samples, in place, until no row overflows; False if no step reduces the overflow."""
    n, rows = len(shares), len(loads)
    # An empty partner in each row turns a swap into a move.
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
