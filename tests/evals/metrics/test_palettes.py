"""Colour measures on images painted by hand, whose answers are known."""

import numpy as np
import pytest

from macro.evals.metrics.palettes import Colours, Judged, cells_mask, clusters, expected_amounts, light_distance
from macro.scenes.assets.palettes import COLOURS, to_oklab
from macro.sentence.spans import Truth

SIZE = 128
BEHIND = (0.60, 0.72, 0.44)
PALETTES = np.array(
    [
        [COLOURS["red"], COLOURS["white"], COLOURS["navy"]],
        [COLOURS["blue"], COLOURS["yellow"], COLOURS["black"]],
        [COLOURS["grey"], COLOURS["pink"], COLOURS["brown"]],
    ]
)
GRID = np.zeros((8, 8), np.int8)
GRID[1:4, 0:3], GRID[2:5, 5:8], GRID[6:8, 2:5] = 1, 2, 3


def paint(order=(1, 2, 3), light=1.0, second=0.0):
    """The cells of subject k flat in the main colour of subject order[k]; 0 leaves the background.

    `light` scales linear light, `second` is the share of each cell's pixels in the second colour.
    """
    image = np.broadcast_to(BEHIND, (SIZE, SIZE, 3)).copy()
    column = np.broadcast_to(np.arange(SIZE) % 16 < 16 * second, (SIZE, SIZE))
    for cells, who in enumerate(order, 1):
        mask = cells_mask(GRID, cells, (SIZE, SIZE))
        if who:
            image[mask], image[mask & column] = PALETTES[who - 1, 0], PALETTES[who - 1, 1]
    linear = np.where((image == BEHIND).all(-1, keepdims=True), 1.0, light) * image**2.2
    return np.round(255 * np.clip(linear, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def truth():
    masks = np.stack([cells_mask(GRID, n, (SIZE, SIZE)) for n in (1, 2, 3)])
    return Truth(
        kinds=("dog", "car", "tree"),
        palettes=PALETTES.astype(np.float32),
        textures=("plain",) * 3,
        colours=((),) * 3,
        boxes=np.zeros((3, 4), np.float32),
        masks=masks,
        amodal=masks,
        visibility=np.ones(3, np.float32),
        depth_order=(1, 2, 3),
    )


def judge(image, target=None):
    target = paint() if target is None else target
    colours = Colours.of(target, truth())
    return Judged(image, colours), expected_amounts(target, colours, GRID)


def held(image, target=None):
    judged, expected = judge(image, target)
    return [judged.holds(n, expected[n - 1], GRID) for n in (1, 2, 3)]


def swapped(image):
    judged, _ = judge(image)
    return [judged.swapped(n, GRID) for n in (1, 2, 3)]


def distances(image):
    judged, expected = judge(image)
    return [judged.palette_distance(n, expected[n - 1, :3], GRID) for n in (1, 2, 3)]


def test_perfect_cells():
    assert held(paint()) == [True] * 3
    assert swapped(paint()) == [(0, 9), (0, 9), (0, 6)]
    assert max(distances(paint())) < 0.01


def test_exchanged_cells():
    image = paint((2, 1, 3))
    assert held(image) == [False, False, True]
    assert swapped(image) == [(9, 9), (9, 9), (0, 6)]
    judged, _ = judge(image)
    there = cells_mask(GRID, 2, (SIZE, SIZE))
    assert judged.contest(1, 2, there) == pytest.approx((1.0, 0.0))
    assert judge(paint())[0].contest(1, 2, there) == pytest.approx((0.0, 1.0))


def test_background_only():
    image = paint((0, 0, 0))
    assert held(image) == [False] * 3
    assert swapped(image) == [(0, 9), (0, 9), (0, 6)]
    assert min(distances(image)) > 0.1


@pytest.mark.parametrize("light", [0.35, 0.7, 1.3])
def test_light_is_forgiven(light):
    assert held(paint(light=light)) == [True] * 3
    assert sum(n for n, _ in swapped(paint(light=light))) == 0


def test_half_of_the_cells_is_enough_a_fifth_is_not():
    half, fifth = paint(), paint()
    half[:, ::2] = paint((0, 0, 0))[:, ::2]
    keep = np.arange(SIZE) % 5 == 0
    fifth[:, ~keep] = paint((0, 0, 0))[:, ~keep]
    assert held(half) == [True] * 3
    assert held(fifth) == [False] * 3


def test_a_pattern_may_be_blurred_but_not_left_out():
    target = paint(second=0.5)
    column = (np.arange(SIZE) // 4) % 2 == 0
    target[:, column], target[:, ~column] = paint(second=0)[:, column], paint(second=1)[:, ~column]
    smooth = (target.astype(float) / 255) ** 2.2
    smooth = sum(np.roll(smooth, k, 1) for k in range(-1, 2)) / 3
    blurred = np.round(255 * smooth ** (1 / 2.2)).astype(np.uint8)
    assert held(target, target) == held(blurred, target) == [True] * 3
    assert held(paint(second=1), target) == [False] * 3  # the second colour alone


def test_noise_holds_nobodys_palette():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (SIZE // 4, SIZE // 4, 3), dtype=np.uint8)
    for noise in (coarse.repeat(4, 0).repeat(4, 1), rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)):
        assert held(noise) == [False] * 3
        assert held(noise, paint(second=0.4)) == [False] * 3


def test_colours_in_shade():
    grey, white, red, blue = (np.array(COLOURS[name]) for name in ("grey", "white", "red", "blue"))
    shaded = (red**2.2 * 0.3) ** (1 / 2.2)
    to_red, to_blue = light_distance(to_oklab(shaded)[None], np.stack([red, blue]))[0]
    assert to_red < 0.05 < to_blue
    to_grey, to_white = light_distance(to_oklab(grey)[None], np.stack([grey, white]))[0]
    assert to_grey < to_white


def test_a_subject_without_cells():
    judged, expected = judge(paint())
    bare = np.where(GRID == 2, 0, GRID).astype(np.int8)
    assert not judged.holds(2, expected[1], bare)
    assert judged.swapped(2, bare) == (0, 0)
    assert np.isnan(judged.palette_distance(2, expected[1, :3], bare))


def test_clusters():
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(3, 3)) * 5
    pixels = np.concatenate([m + 0.01 * rng.normal(size=(n, 3)) for m, n in zip(middles, (50, 30, 20), strict=True)])
    centres, shares = clusters(pixels, 3)
    order = np.argsort(-shares)
    assert shares[order] == pytest.approx([0.5, 0.3, 0.2])
    assert np.abs(centres[order] - middles).max() < 0.02
    assert np.array_equal(clusters(pixels, 3)[0], centres)
