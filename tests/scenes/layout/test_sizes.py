"""Sizes follow kinds, and distance: what the depth says, perspective confirms."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scenes.drawing import whole_masks

from macro.scenes.assets.catalog import KINDS, REAL_SIZES, toy_size
from macro.scenes.layout.collision import extents_of
from macro.scenes.layout.layout_sampler import sample_scene


def test_every_kind_has_a_size_and_all_stay_within_one_to_four():
    assert set(REAL_SIZES) == set(KINDS)
    sizes = [toy_size(kind) for kind in KINDS]
    assert max(sizes) < 4 * min(sizes)
    assert toy_size("teapot") < toy_size("dog") < toy_size("house")


def largest(subject):
    """Its longest side at no yaw, metres."""
    low, high = extents_of(replace(subject, yaw=0.0, pose=0.5)).box
    return subject.scale * (high - low).max()


def test_subjects_of_a_scene_are_as_large_as_their_kinds():
    for seed in range(24):
        subjects = sample_scene(np.random.default_rng([8, seed]), 1 + seed % 12).subjects
        for one, other in itertools.combinations(subjects, 2):
            ratio, real = largest(one) / largest(other), REAL_SIZES[one.kind] / REAL_SIZES[other.kind]
            if one.kind == other.kind:
                assert ratio == pytest.approx(1.0)
            if real > 1.8:  # beyond the variation of individuals
                assert ratio > 1.0, (one.kind, other.kind)


def nearer_is_taller(seeds):
    """For each pair of a kind on the ground, one of them clearly nearer: whether that one is taller in the image."""
    scenes = [sample_scene(np.random.default_rng(seed), 2 + seed % 7, twins=1.0) for seed in seeds]
    right = []
    for scene, masks in zip(scenes, whole_masks(scenes), strict=True):
        for i, j in itertools.combinations(range(len(scene.subjects)), 2):
            one, other = scene.subjects[i], scene.subjects[j]
            if one.kind != other.kind or one.height or other.height:
                continue
            away = [np.hypot(s.position[0], s.position[1] - scene.camera.eye[2]) for s in (one, other)]
            if max(away) < 1.15 * min(away):
                continue
            heights = [masks[k].any(1).sum() for k in (i, j)]
            right.append((heights[0] > heights[1]) == (away[0] < away[1]))
    return right


def test_of_two_of_a_kind_the_nearer_is_taller():
    right = nearer_is_taller(range(48))
    assert len(right) > 10 and np.mean(right) >= 0.95


@pytest.mark.slow
def test_of_two_of_a_kind_the_nearer_is_taller_in_many_scenes():
    right = nearer_is_taller(range(1000, 1320))
    assert len(right) > 60 and np.mean(right) > 0.97, "poses and yaws that lower one of them are rare"
