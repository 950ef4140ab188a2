"""Every kind: 3 to 7 primitives, on the ground, about a unit large, seen, and unlike the others."""

import numpy as np
import pytest
from scenes.drawing import alone, images

from macro.scenes.assets.catalog import GROUPS, KINDS, SUPPORTS
from macro.scenes.assets.parts import box_of
from macro.scenes.graph import DECALS


@pytest.fixture(scope="module")
def small_images() -> dict[str, np.ndarray]:
    return images([alone(kind) for kind in KINDS], samples=4)


def test_there_are_enough_and_each_belongs_to_one_group():
    assert len(KINDS) >= 24
    assert sorted(KINDS) == sorted(kind for kinds in GROUPS.values() for kind in kinds)


def test_primitives_stand_on_the_ground_and_are_about_a_unit():
    wrong = []
    for kind, build in KINDS.items():
        for pose in (0.0, 0.4, 1.0):
            parts = build(pose)
            low, high = box_of(tuple(parts))
            checks = {
                "has 3 to 7 parts": 3 <= len(parts) <= 7,
                "neither floats nor sinks": -0.12 < low[1] < 0.08,
                "is about a unit large": 0.6 < max(high - low) < 1.7,
                "stands around its own middle": np.abs((low + high)[[0, 2]]).max() < 0.6,
            }
            wrong += [(kind, pose, check) for check, holds in checks.items() if not holds]
    assert not wrong


def test_pose_moves_something():
    assert not [kind for kind, build in KINDS.items() if build(0.0) == build(1.0)]


def test_a_decal_has_a_place_on_most_kinds():
    bearing = [kind for kind in KINDS if any(part.decal for part in KINDS[kind](0.5))]
    assert len(bearing) >= 0.75 * len(KINDS)


def test_every_kind_is_seen_and_no_two_look_alike(small_images):
    masks = small_images["ids"] > 0
    assert (masks.mean((1, 2)) > 0.03).all()
    flat = masks.reshape(len(masks), -1).astype(float)
    overlap = flat @ flat.T
    iou = overlap / (flat.sum(1)[:, None] + flat.sum(1)[None] - overlap)
    np.fill_diagonal(iou, 0)
    assert iou.max() < 0.9, "two outlines are the same"


def test_main_colour_leads_the_image(small_images):
    """Averaged over kinds, what is seen of a plain red, white and blue subject is red first."""
    masks, pixels = small_images["ids"] > 0, small_images["pixels"].astype(float)
    mean = pixels[masks].mean(0)
    assert mean[0] > 1.4 * mean[1]
    assert mean[0] > 1.4 * mean[2]


def test_decals_and_textures_change_the_image():
    looks = [("plain", None), ("stripe", None), ("check", None), ("dot", None), ("noise", None)]
    looks += [("plain", decal) for decal in DECALS]
    pixels = images([alone("bear", *look, yaw=0.0) for look in looks], samples=4)["pixels"].astype(int)
    for i in range(len(looks)):
        for j in range(i):
            changed = (np.abs(pixels[i] - pixels[j]).max(-1) > 40).sum()
            assert changed >= 20, f"{looks[i]} looks like {looks[j]}"


def test_supports_have_a_flat_top_at_the_stated_height():
    for kind, top in SUPPORTS.items():
        assert abs(box_of(tuple(KINDS[kind](0.5)))[1, 1] - top) < 0.015
