"""Cuts in made-up films whose cuts are known, and in rendered clips."""

import numpy as np
import pytest

from macro.engines.macrodata import shot_boundaries
from macro.scenes.animation import motion
from macro.scenes.render.batches import render_images


def wall(seed: int, side: int = 96) -> np.ndarray:
    """A smooth random image, larger than a frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (7, 7, 3))
    rows = np.linspace(0, 5.999, side)
    low = rows.astype(int)
    part = (rows - low)[:, None, None]
    tall = coarse[low] * (1 - part) + coarse[low + 1] * part
    part = (rows - low)[None, :, None]
    return tall[:, low] * (1 - part) + tall[:, low + 1] * part


def pan(seed: int, frames: int, step: int = 2, grain: float = 3.0) -> list[np.ndarray]:
    """A camera that goes along a wall, with grain."""
    image, rng = wall(seed), np.random.default_rng(seed)
    cut = [image[n : n + 48, step * n : step * n + 48] for n in range(frames)]
    return [np.clip(frame + grain * rng.normal(size=frame.shape), 0, 255).astype(np.uint8) for frame in cut]


def test_cuts_between_pans_are_found_and_nothing_else():
    lengths = [5, 9, 3, 12, 4, 7]
    film = [frame for seed, length in enumerate(lengths) for frame in pan(seed, length)]
    assert shot_boundaries.cuts(film) == tuple(np.cumsum(lengths)[:-1])
    found = shot_boundaries.shots(film)
    assert [stop - start for start, stop in found] == lengths
    assert shot_boundaries.centres(found)[:3] == (2, 9, 15)


def test_a_fast_pan_and_a_fade_are_no_cuts():
    assert shot_boundaries.cuts(pan(1, 16, step=3)) == ()
    first, last = pan(2, 1)[0].astype(float), pan(3, 1)[0].astype(float)
    fade = [(first + (last - first) * share).astype(np.uint8) for share in np.linspace(0, 1, 16)]
    assert shot_boundaries.cuts(fade) == ()


def test_a_flash_is_no_shot():
    film = pan(1, 6) + [np.full((48, 48, 3), 255, np.uint8)] + pan(1, 6)
    assert shot_boundaries.shots(film) == ((0, 6), (7, 13))


def test_films_too_short_for_a_cut():
    assert shot_boundaries.shots([]) == () and shot_boundaries.shots(pan(0, 1)) == ()
    assert shot_boundaries.shots(pan(0, 2)) == ((0, 2),)
    assert shot_boundaries.differences(pan(0, 3)).shape == (2,)


def test_differences_are_of_content_not_of_size():
    film = pan(0, 2) + pan(1, 1)
    large = [np.repeat(np.repeat(frame, 4, 0), 4, 1) for frame in film]
    np.testing.assert_allclose(shot_boundaries.differences(film), shot_boundaries.differences(large), atol=0.02)
    assert shot_boundaries.differences([film[0], film[0]])[0] == 0
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert shot_boundaries.differences([black, white])[0] == pytest.approx(1)


def test_cuts_of_rendered_clips():
    hits = misses = false = 0
    for seed in range(2):
        scenes, _ = motion.frames(motion.write(np.random.default_rng(seed), 12, episodes=1 + seed % 2), 4.0)
        true = {n for n in range(1, len(scenes)) if scenes[n].camera != scenes[n - 1].camera}
        found = set(shot_boundaries.cuts(render_images(scenes, 32, 1)))
        hits, misses, false = hits + len(true & found), misses + len(true - found), false + len(found - true)
    assert hits >= 18 and misses <= 3 and false == 0
