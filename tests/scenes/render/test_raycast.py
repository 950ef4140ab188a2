"""The caster as a whole: ids against a brute-force loop, batches, seeds, cameras, shadows."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from scenes.drawing import alone, images, whole_masks
from scenes.solids import first_hit

from macro.scenes.graph import Camera
from macro.scenes.layout.layout_sampler import sample_scene
from macro.scenes.render.raycast import render
from macro.scenes.render.scene_compiler import camera_basis, compile_scene, stack


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(np.random.default_rng(seed), count) for seed, count in enumerate((1, 3, 6, 12))]


def test_shapes_and_types(scenes):
    out = images(scenes, 40, 24)  # no multiples of a tile
    assert out["pixels"].shape == (4, 40, 24, 3) and out["pixels"].dtype == np.uint8
    assert out["ids"].shape == (4, 40, 24) and out["ids"].dtype == np.int32
    assert out["depth"].shape == (4, 40, 24) and out["depth"].dtype == np.float32
    assert not np.isnan(out["depth"]).any()
    assert whole_masks(scenes).shape == (4, 12, 64, 64)


def _brute_force_ids(scene, side: int, step: int) -> np.ndarray:
    """One pixel (of every `step`-th row and column) and primitive after the other, in float64, by marching."""
    arrays, camera = compile_scene(scene), scene.camera
    ids = np.zeros((side, side), int)[::step, ::step]
    for row, column in np.ndindex(ids.shape):
        tangent = np.tan(camera.fov / 2)
        aim = np.array([(2 * step * column + 1) / side - 1, 1 - (2 * step * row + 1) / side, 1 / tangent])
        ray = aim @ camera_basis(camera)
        ray = ray / np.linalg.norm(ray)
        nearest = -camera.eye[1] / ray[1] if ray[1] < 0 else np.inf
        for k in np.flatnonzero(arrays["bound"][:, 3] > 0):
            shape, frame = arrays["shape"][k], arrays["frame"][k]
            t = first_hit(arrays["family"][k], shape, frame, camera.eye, ray, 14.0, 1500)
            if t < nearest:
                nearest, ids[row, column] = t, arrays["owner"][k] + 1
    return ids


def test_ids_agree_with_a_brute_force_loop():
    scene = sample_scene(np.random.default_rng(3), 3, kinds=("bear", "rocket", "house"))
    seen = images([scene])["ids"][0][::3, ::3]
    expected = _brute_force_ids(scene, 64, 3)
    assert set(np.unique(expected)) == {0, 1, 2, 3}
    # Marching steps of a centimetre may jump over an edge that the closed form meets.
    assert (seen != expected).sum() <= 2


def test_same_seed_same_scene_same_pixels():
    first, second = (sample_scene(np.random.default_rng(11), 5) for _ in range(2))
    assert first == second
    a, b = images([first], samples=4), images([second], samples=4)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_batch_equals_one_by_one(scenes):
    together = images(scenes)
    for i, scene in enumerate(scenes):
        one = images([scene])  # beside copies of itself
        for key in together:
            np.testing.assert_array_equal(together[key][i], one[key][0])


def test_ids_do_not_depend_on_antialiasing(scenes):
    np.testing.assert_array_equal(images(scenes, samples=1)["ids"], images(scenes, samples=4)["ids"])


def test_amodal_masks_hold_the_visible_ones_and_what_is_hidden(scenes):
    whole, ids = whole_masks(scenes), images(scenes)["ids"]
    for i, scene in enumerate(scenes):
        apart = [replace(scene, subjects=(subject,)) for subject in scene.subjects]
        np.testing.assert_array_equal(whole[i, : len(apart)], images(apart)["ids"] > 0)
        for k in range(len(apart)):
            assert not ((ids[i] == k + 1) & ~whole[i, k]).any()
        assert not whole[i, len(scene.subjects) :].any()


def test_depth_of_the_ground_and_the_sky():
    scene = alone("crate")
    level = replace(scene, camera=Camera("perspective", (0.0, 2.0, -6.0), (0.0, 2.0, 0.0), 0.8))
    out = images([level])
    assert np.isinf(out["depth"][0, :30]).all()
    # The lowest row looks down by 31.5 of the 32 half-rows; the ground is 2 m below the eye.
    down, across = np.tan(0.4) * 31.5 / 32, np.tan(0.4) * (np.arange(64) - 31.5) / 32
    np.testing.assert_allclose(out["depth"][0, 63], 2.0 / down * np.sqrt(1 + down**2 + across**2), rtol=1e-4)


def test_sun_casts_a_shadow_on_the_side_away_from_it():
    scene = alone("crate")
    above = Camera("perspective", (0.0, 9.0, -0.01), (0.0, 0.0, 0.0), 0.5)
    shade = {}
    for side in (-1.0, 1.0):
        light = replace(scene.light, azimuth=side * np.pi / 2, elevation=0.5)
        lit = replace(scene, camera=above, light=light)
        out = images([lit])
        pixels = np.where(out["ids"][0][..., None] > 0, 255, out["pixels"][0]).mean(-1)
        shade[side] = pixels[:, :26].mean() - pixels[:, -26:].mean()
    assert shade[1.0] < -3 and shade[-1.0] > 3


def test_equirectangular_sees_all_around():
    scene = alone("snowman")
    ahead = Camera("equirectangular", (0.0, 0.5, -2.0), (0.0, 0.5, 0.0), 0.0)
    behind = replace(ahead, target=(0.0, 0.5, -4.0))
    front, back = (images([replace(scene, camera=c)])["ids"][0] > 0 for c in (ahead, behind))
    assert front[:, 24:40].sum() > 20 and front.sum() == front[:, 24:40].sum()
    np.testing.assert_array_equal(front, np.roll(back, 32, axis=1))
    depth = images([replace(scene, camera=ahead)])["depth"][0]
    assert np.isinf(depth[:16]).all() and np.isfinite(depth[-16:]).all()


@pytest.mark.slow
def test_side_by_side_equals_one_after_the_other(scenes, monkeypatch):
    """Accelerators run all tiles under `vmap`; the CPU one after another. The images must be the same."""
    batch = stack([compile_scene(s) for s in scenes])
    expected = images(scenes, samples=4)
    monkeypatch.setattr("macro.scenes.render.raycast.jax.default_backend", lambda: "an accelerator")
    vectorised = jax.jit(functools.partial(render.__wrapped__, height=64, width=64, samples=4))(batch)
    np.testing.assert_array_equal(vectorised["ids"], expected["ids"])
    np.testing.assert_allclose(vectorised["depth"], expected["depth"], rtol=1e-5)
    assert np.abs(np.asarray(vectorised["pixels"], int) - expected["pixels"]).max() <= 1
