"""The layout grid: 8 x 8 cells over the image, each with the number of the subject there.

Cell 0 is background, n = 1..12 the n-th subject (MUSIC's layout, arXiv 2604.07422). Row 0 is the top row.
`macro/scenes/ground_truth/annotate.py` makes grids from boxes and masks; `layout_to_token_weights` maps a grid to the
model's latent tokens. Read next: `macro/sentence/plan.py`.
"""

import numpy as np
from jaxtyping import Float32, Int8

from macro.utils.errors import UserError

GRID_SIZE = 8  # cells along each side of the image
MAX_SUBJECTS = 12  # the most subjects a sentence may have
NUM_CLASSES = MAX_SUBJECTS + 1  # values of a cell: background or one subject

Grid = Int8[np.ndarray, "8 8"]


def validate_grid(grid, subjects: int = MAX_SUBJECTS) -> Grid:
    """Checks a grid (nested lists from a plan.json, or an array) and returns it as int8[8, 8].

    Args:
        grid: 8 rows of 8 whole numbers, 0 for background or a subject's number.
        subjects: number of subjects in the sentence; cells may hold 0..subjects.

    Raises:
        UserError: not 8 x 8, not whole numbers, or a cell names a subject that does not exist.
    """
    try:
        cells = np.asarray(grid)
    except ValueError:  # rows of different lengths
        cells = np.empty(0, object)
    if cells.shape != (GRID_SIZE, GRID_SIZE):
        raise UserError(f"plan grid: {_shape_in_words(grid)}, but it must be {GRID_SIZE} rows of {GRID_SIZE} numbers")
    if not np.issubdtype(cells.dtype, np.integer):
        raise UserError(f"plan grid: cells must be whole numbers from 0 to {subjects}, 0 for background")
    wrong = np.argwhere((cells < 0) | (cells > subjects))
    if len(wrong):
        row, column = wrong[0]
        have = f"there are {subjects} subjects" if subjects != 1 else "there is 1 subject"
        raise UserError(
            f"plan grid: row {row + 1}, column {column + 1} names subject {cells[row, column]}, but {have}; "
            f"use 0 (background) to {subjects}"
        )
    return cells.astype(np.int8)


def _shape_in_words(grid) -> str:
    if not isinstance(grid, (list, tuple, np.ndarray)):
        return f"it is {type(grid).__name__}"
    widths = {len(row) if isinstance(row, (list, tuple, np.ndarray)) else 1 for row in grid}
    if len(widths) > 1:
        return f"it has {len(grid)} rows of different lengths ({min(widths)} to {max(widths)})"
    return f"it is {len(grid)} rows of {widths.pop() if widths else 0}"


def layout_to_token_weights(grid: Grid, rows: int, columns: int) -> Float32[np.ndarray, "n 13"]:
    """The share of each latent token's area that belongs to each subject.

    Args:
        grid: the layout.
        rows, columns: size of the image in latent tokens. A token may cover several cells or part of one.

    Returns:
        float32[rows * columns, 13], row-major over tokens; each row sums to 1; column 0 is background.
    """
    cells = np.eye(NUM_CLASSES, dtype=np.float32)[grid]
    shares = np.einsum("hr,wc,rcs->hws", _overlap(rows), _overlap(columns), cells, optimize=True)
    return shares.reshape(rows * columns, NUM_CLASSES).astype(np.float32)


def _overlap(tokens: int) -> Float32[np.ndarray, "n 8"]:
    """[token, cell]: the share of a token's interval on one axis that lies inside each cell's interval."""
    token, cell = np.arange(tokens)[:, None], np.arange(GRID_SIZE)[None]
    # In units of 1 / (tokens * SIDE) both edges are integers, so the shares are exact.
    start = np.maximum(token * GRID_SIZE, cell * tokens)
    stop = np.minimum((token + 1) * GRID_SIZE, (cell + 1) * tokens)
    return (np.maximum(stop - start, 0) / GRID_SIZE).astype(np.float32)


def grid_iou(a: Grid, b: Grid) -> float:
    """Mean intersection over union of cells, over the subjects present in either grid.

    A subject missing from one of them counts as 0; two grids without subjects have IoU 1.
    """
    named = np.union1d(a, b)
    named = named[named > 0]
    if not len(named):
        return 1.0
    here, there = (grid == named[:, None, None] for grid in (a, b))
    shared, either = (here & there).sum((1, 2)), (here | there).sum((1, 2))
    return float(np.mean(shared / either))
