"""Sizes by BAGEL's rule, and patches."""

import numpy as np
import pytest

from macro.inputs.transforms import drawn_size, fit_size, patchify
from macro.utils.errors import UserError
from macro.utils.images import save


def test_fit_size_by_hand():
    assert fit_size(64, 64, max_side=64, stride=16) == (64, 64)
    assert fit_size(400, 300, max_side=64, stride=16) == (64, 48)
    assert fit_size(8, 8, max_side=64, stride=16) == (16, 16)
    assert fit_size(10, 1000, max_side=64, stride=16) == (16, 64)
    assert fit_size(100, 200, max_side=1024, stride=16, min_side=512) == (512, 1024)


def test_an_edit_is_drawn_in_the_shape_of_its_source(tmp_path):
    buckets = ((128, 128, 3), (96, 160, 1), (160, 96, 1))
    assert drawn_size(buckets) == (128, 128)
    assert drawn_size(buckets, np.zeros((300, 310, 3), np.uint8)) == (128, 128)
    assert drawn_size(buckets, np.zeros((30, 60, 3), np.uint8)) == (96, 160)
    save(tmp_path / "tall.png", np.zeros((60, 30, 3), np.uint8))
    assert drawn_size(buckets, tmp_path / "tall.png") == (160, 96)
    with pytest.raises(UserError, match="none.png"):
        drawn_size(buckets, tmp_path / "none.png")


def test_patches_are_row_major_and_in_minus_one_to_one():
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    patches = patchify(pixels, 2)
    assert patches.shape == (6, 12) and patches.dtype == np.float32
    np.testing.assert_allclose(patches[4], (pixels[2:4, 2:4].reshape(-1) / 255 - 0.5) / 0.5, atol=1e-6)
