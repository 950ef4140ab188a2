"""Paths of nested dicts, splitting by pattern, the hash of all leaves."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.utils import tree

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
names = st.text("abz_.", min_size=1, max_size=3)
trees = st.dictionaries(
    names,
    st.recursive(st.integers(), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3)),
    max_size=4,
)


@QUICK
@given(trees)
def test_unflatten_inverts_flatten(nested):
    assert tree.unflatten(tree.flatten(nested)) == nested


@QUICK
@given(trees)
def test_paths_are_sorted(nested):
    assert list(tree.flatten(nested)) == sorted(tree.flatten(nested))


@QUICK
@given(trees)
def test_merge_inverts_split(nested):
    patterns = ["a"] if any("a" in path for path in tree.flatten(nested)) else []
    rest, found = tree.split(nested, patterns)
    assert all("a" in path for path in tree.flatten(found))
    if patterns:
        assert not any("a" in path for path in tree.flatten(rest))
    assert tree.merge(rest, found) == nested


def test_a_pattern_that_finds_nothing_is_an_error():
    with pytest.raises(ValueError, match="'vea/'.*vae/kernel"):
        tree.split({"vae": {"kernel": 1}}, ["vea/"])


def test_merge_takes_the_later():
    assert tree.merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_sha256_is_over_raw_bytes_in_order_of_paths():
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.int32)
    wanted = hashlib.sha256(a.tobytes() + b.tobytes()).hexdigest()
    assert tree.sha256({"z": b, "a": {"x": a}}) == wanted
    # A transposed view holds other bytes in memory order; what counts is the array's own order.
    assert tree.sha256({"a": a.T}) == hashlib.sha256(np.ascontiguousarray(a.T).tobytes()).hexdigest()


def test_count():
    assert tree.count({"a": np.zeros((2, 3)), "b": {"c": np.zeros(())}}) == 7
