"""Filling rows: vector bin packing of samples that each need several things at once.

A row has a fixed capacity of text, vision and latent tokens, of samples and of picture slots. Given what
each sample needs, `assign` puts all of them into as few rows as it can. The fewest rows conceivable are

    R = max over kinds d of ceil( sum_i need[i, d] / capacity[d] )

so R rows are opened at once and the samples, biggest first, each go to the row whose free space points
their way best (greatest dot product of need and free space, the kinds weighted by how scarce they are).
Where some sample finds no row, samples are exchanged to make room, and only then are rows added. Balanced
rows, unlike first fit, keep all kinds near full together. Read next: `macro/inputs/packing.py`.
"""

import numpy as np

from macro.utils.errors import UserError


def assign(needs: np.ndarray, capacities: np.ndarray, names: list[str], kinds: list[str]) -> list[list[int]]:
    """Puts every sample into exactly one row.

    Args:
        needs: int[n, d], what each sample takes of each kind.
        capacities: int[d], what a row has of it.
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
        placed = _place(shares, order, rows)
        if placed is not None:
            groups = [np.flatnonzero(placed == row).tolist() for row in range(rows)]
            return [group for group in groups if group]
        rows += max(1, rows // 64)


def _place(shares: np.ndarray, order: np.ndarray, rows: int) -> np.ndarray | None:
    """The row of each sample, or None if this many rows were not enough."""
    scarcity = shares.sum(0) / rows
    free = np.ones((rows, shares.shape[1]))
    placed = np.full(len(shares), -1)
    for i in order.tolist():
        fits = (free >= shares[i] - 1e-9).all(1)
        if fits.any():
            score = free @ (shares[i] * scarcity)
            row = int(np.argmax(np.where(fits, score, -1)))
        else:
            row = _make_room(shares, placed, free, i)
            if row is None:
                return None
        placed[i] = row
        free[row] -= shares[i]
    return placed


def _make_room(shares: np.ndarray, placed: np.ndarray, free: np.ndarray, i: int) -> int | None:
    """Moves one placed sample j to another row so that i fits where j was; that row, or None."""
    inside = np.flatnonzero(placed >= 0)
    leaves = (free[placed[inside]] + shares[inside] >= shares[i] - 1e-9).all(1)
    for j in inside[leaves]:
        takes = (free >= shares[j] - 1e-9).all(1)
        takes[placed[j]] = False
        if takes.any():
            # The tightest row that takes j, so that the roomy ones stay for what is still to come.
            to = int(np.argmin(np.where(takes, free.sum(1), np.inf)))
            row = int(placed[j])
            free[row] += shares[j]
            free[to] -= shares[j]
            placed[j] = to
            return row
    return None
