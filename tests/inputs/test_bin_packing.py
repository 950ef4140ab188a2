"""Vector bin packing: everything fits, everything is placed, rows are full."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.inputs.bin_packing import pack
from macro.utils.errors import UserError

KINDS = ["text tokens", "vision tokens", "latent tokens"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_every_sample_once_and_no_row_too_full(seed, n):
    rng = np.random.default_rng(seed)
    capacities = np.array([100, 40, 7])
    needs = rng.integers(0, capacities + 1, (n, 3))
    rows = pack(needs, capacities, [""] * n, KINDS)
    assert sorted(i for row in rows for i in row) == list(range(n))
    assert all((needs[row].sum(0) <= capacities).all() for row in rows)


def test_exact_partition_is_found():
    # Three kinds at once: 24 samples that fill 6 rows to the last place.
    rng = np.random.default_rng(0)
    needs = np.concatenate([[[a, b, 1], [50 - a, 30 - b, 1]] for a, b in rng.integers(1, 30, (12, 2))])
    rows = pack(needs, np.array([100, 60, 4]), [""] * 24, KINDS)
    assert len(rows) <= 7


def test_too_big_a_sample_is_named():
    with pytest.raises(
        UserError, match=r"sample 8 needs 41 vision tokens, but a row holds 40; raise packing.vision"
    ):
        pack(np.array([[1, 1, 1], [1, 41, 1]]), np.array([100, 40, 7]), ["sample 3", "sample 8"], KINDS)
