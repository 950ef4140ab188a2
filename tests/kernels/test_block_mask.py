"""The block mask: no visible pair is missing from it, and it lists what kernels visit in their order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernels.test_attention import random_meta
from kernels.test_attention_pallas import sentences

from macro.kernels.attention import block_mask as lib
from macro.kernels.attention.reference import attention_mask
from macro.sentence.attention_mask import FULL, NOISE

any_visible, all_visible, block_mask = (jax.jit(f) for f in (lib.any_visible, lib.all_visible, lib.block_mask))


def split_blocks(meta, size):
    return {name: x.reshape(x.shape[0], -1, size) for name, x in meta.items()}


@pytest.mark.parametrize("order", ["sorted", "as they lie"])
def test_no_visible_pair_is_left_out_and_none_is_full_by_mistake(order):
    meta = random_meta(np.random.default_rng(8), 4, 192)
    if order == "sorted":
        meta = {name: jnp.take_along_axis(x, lib.sort_order(meta), axis=1) for name, x in meta.items()}
    mask = np.asarray(attention_mask(meta, meta)).reshape(4, 48, 4, 96, 2)
    pairs, full = (np.asarray(f(split_blocks(meta, 4), split_blocks(meta, 2))) for f in (any_visible, all_visible))
    assert np.all(pairs[mask.any((2, 4))])
    assert np.all(mask.all((2, 4))[full])


@pytest.mark.parametrize("mode", [FULL, NOISE])
def test_the_block_mask_is_exact_where_blocks_hold_one_span(mode):
    text, image = sentences(32, 3), sentences(32, 3, mode)
    np.testing.assert_array_equal(
        any_visible(split_blocks(text, 8), split_blocks(text, 8))[0], np.kron(np.eye(3), np.tril(np.ones((4, 4))))
    )
    np.testing.assert_array_equal(
        all_visible(split_blocks(text, 8), split_blocks(text, 8))[0], np.kron(np.eye(3), np.tril(np.ones((4, 4)), -1))
    )
    for found_by in (any_visible, all_visible):
        found = found_by(split_blocks(image, 8), split_blocks(image, 8))[0]
        np.testing.assert_array_equal(found, np.kron(np.eye(3), np.ones((4, 4))))


def test_the_block_mask_lists_pairs_in_order():
    pairs = jnp.array([[[0, 1, 1], [0, 0, 0], [1, 0, 0]], [[1, 1, 1], [1, 1, 1], [1, 1, 1]]], bool)
    full = jnp.zeros((2, 3, 3), bool).at[0, 0, 2].set(True).at[0, 2, 1].set(True)
    outer, inner, flags, counts = block_mask(pairs, full)
    assert counts.tolist() == [4, 9]
    assert outer[0].tolist() == [0, 0, 1] + [2] * 6
    assert inner[0].tolist() == [1, 2, -1] + [0] * 6
    assert flags[0].tolist() == [0, 1] + [0] * 7
    assert (outer[1] * 3 + inner[1]).tolist() == list(range(9))
