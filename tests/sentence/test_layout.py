"""Layout grids: what is refused, and how cells become shares of latent tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.sentence.layout import GRID_SIZE, NUM_CLASSES, grid_iou, layout_to_token_weights, validate_grid
from macro.utils.errors import UserError

QUICK = settings(max_examples=30, deadline=None, derandomize=True)
grids = st.lists(st.integers(0, 12), min_size=64, max_size=64).map(
    lambda cells: np.array(cells, np.int8).reshape(GRID_SIZE, GRID_SIZE)
)


@QUICK
@given(grids)
def test_nested_lists_become_the_same_int8_grid(grid):
    read = validate_grid(grid.tolist())
    assert read.dtype == np.int8
    np.testing.assert_array_equal(read, grid)


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ([[0] * 8] * 7, "it is 7 rows of 8"),
        ([[0] * 9] * 8, "it is 8 rows of 9"),
        ([[0] * 8] * 7 + [[0] * 5], "rows of different lengths (5 to 8)"),
        ([0] * 64, "it is 64 rows of 1"),
        ([], "it is 0 rows"),
        (7, "it is int"),
        ({"a": 1}, "it is dict"),
        ([[0.5] * 8] * 8, "whole numbers"),
        ([["1"] * 8] * 8, "whole numbers"),
        ([[True] * 8] * 8, "whole numbers"),
        ([[None] * 8] * 8, "whole numbers"),
        ([[10**30] * 8] * 8, "whole numbers"),
    ],
)
def test_what_is_no_grid_is_named(grid, says):
    with pytest.raises(UserError) as error:
        validate_grid(grid)
    assert says in str(error.value) and str(error.value).startswith("plan grid: ")


def test_absent_subject_is_named_with_its_cell():
    grid = np.zeros((8, 8), int)
    grid[2, 5] = 4
    assert validate_grid(grid, 4)[2, 5] == 4
    with pytest.raises(UserError, match="row 3, column 6 names subject 4, but there are 3 subjects"):
        validate_grid(grid, 3)
    grid[2, 5] = -1
    with pytest.raises(UserError, match="row 3, column 6 names subject -1, but there is 1 subject"):
        validate_grid(grid, 1)


@QUICK
@given(grids)
def test_one_token_a_cell_is_one_hot(grid):
    shares = layout_to_token_weights(grid, GRID_SIZE, GRID_SIZE)
    np.testing.assert_array_equal(shares, np.eye(NUM_CLASSES, dtype=np.float32)[grid.ravel()])


@QUICK
@given(grids, st.integers(1, 20), st.integers(1, 20))
def test_shares_are_the_areas_counted_on_a_fine_raster(grid, rows, columns):
    shares = layout_to_token_weights(grid, rows, columns)
    # A raster that both the cells and the tokens divide: count its points.
    fine = grid.repeat(rows, 0).repeat(columns, 1)
    tokens = fine.reshape(rows, GRID_SIZE, columns, GRID_SIZE).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    counted = (tokens[..., None] == np.arange(NUM_CLASSES)).mean(1)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares, counted, atol=1e-6)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)


def test_iou_is_the_mean_over_subjects_of_either_grid():
    a, b = np.zeros((8, 8), np.int8), np.zeros((8, 8), np.int8)
    assert grid_iou(a, b) == 1
    a[0, :4], b[0, 2:6] = 1, 1  # 2 shared of 6
    assert grid_iou(a, b) == pytest.approx(2 / 6)
    b[5, 5] = 2  # missing from a
    assert grid_iou(a, b) == grid_iou(b, a) == pytest.approx(1 / 6)
    assert grid_iou(b, b) == 1
