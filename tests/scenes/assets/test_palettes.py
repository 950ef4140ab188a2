"""Named colours answer to their names and stay apart."""

import itertools

import numpy as np
import pytest

from macro.scenes.assets.palettes import COLOURS, colour_distance, colour_name, to_linear, to_oklab


@pytest.mark.parametrize("name", COLOURS)
def test_a_colour_keeps_its_name_under_small_changes(name):
    rng = np.random.default_rng(0)
    for _ in range(10):
        near = np.clip(COLOURS[name] + rng.uniform(-0.02, 0.02, 3), 0, 1)
        assert colour_name(tuple(float(c) for c in near)) == name


def test_colours_are_different_colours():
    assert 12 <= len(COLOURS) <= 16
    assert min(colour_distance(a, b) for a, b in itertools.combinations(COLOURS.values(), 2)) > 0.1


def test_oklab_of_white_black_and_grey():
    np.testing.assert_allclose(to_oklab([[1, 1, 1], [0, 0, 0]]), [[1, 0, 0], [0, 0, 0]], atol=2e-3)
    lightness, a, b = to_oklab((0.5, 0.5, 0.5))
    assert 0.5 < lightness < 0.7 and abs(a) < 2e-3 and abs(b) < 2e-3
    np.testing.assert_allclose(to_linear((1.0, 0.0, 0.5)), (1.0, 0.0, 0.5**2.2), rtol=1e-6)
