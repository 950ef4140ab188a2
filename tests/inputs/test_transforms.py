"""Sizes by BAGEL's rule, and patches."""

import numpy as np

from macro.inputs.transforms import fit_size, patchify


def test_fit_size_by_hand():
    assert fit_size(64, 64, max_side=64, stride=16) == (64, 64)
    assert fit_size(400, 300, max_side=64, stride=16) == (64, 48)
    assert fit_size(8, 8, max_side=64, stride=16) == (16, 16)
    assert fit_size(10, 1000, max_side=64, stride=16) == (16, 64)
    assert fit_size(100, 200, max_side=1024, stride=16, min_side=512) == (512, 1024)


def test_patches_are_row_major_and_in_minus_one_to_one():
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    patches = patchify(pixels, 2)
    assert patches.shape == (6, 12) and patches.dtype == np.float32
    np.testing.assert_allclose(patches[4], (pixels[2:4, 2:4].reshape(-1) / 255 - 0.5) / 0.5, atol=1e-6)
