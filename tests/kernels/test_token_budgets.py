"""How many tokens each image keeps: properties on any input, and figures by hand."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.kernels.token_selection.budgets import token_budget_bound, token_budgets

COUNTS = st.lists(st.integers(0, 300), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(counts=COUNTS, keep=st.sampled_from([0.3, 0.07, 0.5, 1 / 3, 0.9, 1.0, 1e-9, 0.123456]), floor=st.integers(1, 9))
def test_a_share_of_each_image(counts, keep, floor):
    found = token_budgets(np.array([counts]), keep=keep, floor=floor)[0]
    share = max(Fraction(str(keep)).limit_denominator(10**6), Fraction(1, 10**6))
    assert found.tolist() == [min(max(math.ceil(share * n), min(floor, n)), n) for n in counts]
    assert sum(found) <= token_budget_bound(sum(counts), len(counts), keep=keep, floor=floor) <= sum(counts)


def test_shares_are_exact():
    n = np.arange(1000, 500_000, 977, dtype=np.int64)
    for keep in (0.3, 0.07, 0.29, 0.000001, 0.999999):
        exact = [math.ceil(Fraction(str(keep)) * int(x)) for x in n]
        assert token_budgets(n[None], keep=keep)[0].tolist() == exact
    assert token_budgets(np.array([[10, 100]]), keep=0.3).tolist() == [[3, 30]]


@settings(max_examples=200, deadline=None)
@given(counts=COUNTS, budget=st.integers(1, 4000), floor=st.integers(1, 5))
def test_a_budget_is_spent_in_proportion(counts, budget, floor):
    budget = max(budget, len(counts) * floor)
    found = token_budgets(np.array([counts]), budget=budget, floor=floor)[0]
    total, least = sum(counts), np.minimum(floor, counts)
    assert sum(found) == min(budget, total) <= token_budget_bound(total, len(counts), budget=budget, floor=floor)
    assert np.all(found <= counts) and np.all(found >= least)
    # A larger image gets no less, and who is above the floor lies within one token of its share of what they share.
    order = np.argsort(counts, kind="stable")
    assert np.all(np.diff(found[order]) >= -1)
    above = found > least
    if total > budget and above.any():
        left, among = found[above].sum(), np.asarray(counts)[above].sum()
        assert np.all(np.abs(found[above] - left * np.asarray(counts)[above] / among) < 2)


def test_budgets_by_hand():
    def of(counts, **options):
        return token_budgets(np.array([counts]), **options).tolist()[0]

    assert of([100, 100, 100], budget=100) == [34, 33, 33]
    assert of([1, 1000], budget=10) == [1, 9]
    assert of([1, 1, 998], budget=10, floor=3) == [1, 1, 8]
    assert of([0, 5, 0], budget=40) == [0, 5, 0]
    assert of([10, 100, 0, 7], budget=40, floor=5) == [5, 30, 0, 5]
    assert of([200_000, 100_000], budget=150_000) == [100_000, 50_000]


@pytest.mark.parametrize("options", [dict(keep=0.37, floor=2), dict(budget=60, floor=3)])
def test_numpy_and_jit_agree(options):
    counts = np.random.default_rng(0).integers(0, 50, (20, 6))
    ours = jax.jit(lambda x: token_budgets(x, **options))(jnp.asarray(counts))
    host = token_budgets(counts, **options)
    assert isinstance(host, np.ndarray) and host.dtype == np.int32 == ours.dtype
    np.testing.assert_array_equal(ours, host)


def test_what_no_budget_can_be_is_named():
    for options, named in (
        (dict(), "exactly one"), (dict(keep=0.5, budget=9), "exactly one"), (dict(keep=0.0), "keep=0.0"),
        (dict(keep=1.1), "keep=1.1"), (dict(budget=2), "below one token per image"), (dict(keep=0.5, floor=0), "floor"),
        (dict(budget=5, floor=2), "floor=2 tokens per image"), (dict(keep=math.nan), "keep=nan"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=named):
            token_budgets(np.zeros((1, 3), np.int32), **options)
        with pytest.raises(ValueError, match=named):
            token_budget_bound(30, 3, **options)
