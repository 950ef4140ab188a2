"""Scenes drawn at random keep their promises in the image: visibility, support, colours."""

import itertools

import numpy as np
import pytest
from scenes.drawing import images, whole_masks

from macro.scenes.assets.catalog import KINDS, SUPPORTS
from macro.scenes.assets.palettes import COLOURS, colour_distance, colour_name
from macro.scenes.layout.layout_sampler import decimate, jitter, reference_scene, sample_scene
from macro.scenes.layout.placement import supports_of, world_box
from macro.utils.errors import UserError

COUNTS = list(range(1, 13)) * 4


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(np.random.default_rng((5, i)), count) for i, count in enumerate(COUNTS)]


@pytest.fixture(scope="module")
def seen(scenes):
    return images(scenes)["ids"], whole_masks(scenes)


def test_everyone_is_large_and_visible_enough(scenes, seen):
    areas, shares = [], []
    for scene, ids, whole in zip(scenes, *seen, strict=True):
        for k in range(len(scene.subjects)):
            mask = ids == k + 1
            areas.append(mask.mean())
            shares.append(mask.sum() / whole[k].sum())
    assert min(areas) > 0.003
    assert np.mean(np.array(areas) >= 0.01) > 0.95
    assert np.mean(np.array(shares) >= 0.4) > 0.99


def test_subjects_fill_the_frame_that_their_number_allows(scenes, seen):
    alone = [(ids > 0).any(1).mean() for s, ids in zip(scenes, seen[0], strict=True) if len(s.subjects) == 1]
    assert 0.35 < np.mean(alone) < 0.75
    crowd = [(ids > 0).mean() / 12 for s, ids in zip(scenes, seen[0], strict=True) if len(s.subjects) == 12]
    assert 1.0 < np.sqrt(np.mean(crowd)) * 8 < 1.8


def test_numbers_run_from_one_and_say_nothing_about_places(scenes):
    for scene in scenes:
        assert [s.number for s in scene.subjects] == list(range(1, len(scene.subjects) + 1))
    pairs = [s.subjects[:2] for s in scenes if len(s.subjects) > 1]
    first_is_left = [a.position[0] < b.position[0] for a, b in pairs]
    assert 0.25 < np.mean(first_is_left) < 0.75


def test_palettes_are_named_and_stay_apart(scenes):
    for scene in scenes:
        mains = [s.palette[0] for s in scene.subjects]
        assert len({colour_name(main) for main in mains}) == len(mains)
        assert all(colour_distance(a, b) > 0.1 for a, b in itertools.combinations(mains, 2))
        assert all(colour_distance(main, scene.surroundings.ground) > 0.12 for main in mains)
        assert all(colour in COLOURS.values() for s in scene.subjects for colour in s.palette)


def test_decimation_drops_the_smallest_and_moves_nobody(scenes):
    scene = scenes[7]
    fewer = decimate(scene, 4)
    places = {s.position: s for s in scene.subjects}
    assert [s.number for s in fewer.subjects] == [1, 2, 3, 4]
    for subject in fewer.subjects:
        before = places[subject.position]
        assert (before.kind, before.scale) == (subject.kind, subject.scale)
    assert fewer.camera == scene.camera and fewer.surroundings == scene.surroundings


def test_decimation_never_takes_a_table_from_under_its_guest():
    found = 0
    for seed in range(10):
        scene = sample_scene(np.random.default_rng(seed), 8)
        for keep in (7, 5, 3):
            kept = decimate(scene, keep).subjects
            guests = [s for s in kept if s.height > 0]
            found += len(guests)
            assert all(any(o.kind in SUPPORTS for o in kept) for _ in guests)
    assert found > 3


def test_a_reference_shows_the_same_subject_in_another_view_pose_and_light(scenes):
    rng = np.random.default_rng(0)
    pairs = [(scene.subjects[k], reference_scene(scene, k, rng), scene) for scene in scenes[:12]
             for k in range(len(scene.subjects))]
    for subject, reference, scene in pairs:
        (same,) = reference.subjects
        for trait in ("kind", "palette", "texture", "decal", "number"):
            assert getattr(same, trait) == getattr(subject, trait)
        assert abs(same.yaw - subject.yaw) > 0.4 and same.pose != subject.pose
        assert reference.light != scene.light and reference.surroundings.style == "studio"
    ids = images([reference for _, reference, _ in pairs])["ids"]
    heights, widths = ((ids > 0).any(axis).sum(1) for axis in (2, 1))
    assert (np.maximum(heights, widths) >= 36).all()
    border = np.concatenate([ids[:, 0], ids[:, -1], ids[:, :, 0], ids[:, :, -1]], 1)
    assert (border > 0).any(1).mean() < 0.05, "references are cut by their frame"


def test_jitter_keeps_who_and_where(scenes):
    scene = scenes[4]
    other = jitter(scene, np.random.default_rng(1))
    assert other.light != scene.light and other.seed != scene.seed
    for a, b in zip(scene.subjects, other.subjects, strict=True):
        assert (a.kind, a.palette, a.position, a.yaw) == (b.kind, b.palette, b.position, b.yaw)
        assert a.pose != b.pose


def test_some_stand_on_others_and_exactly_on_top(scenes):
    riders = [(scene, pair) for scene in scenes for pair in supports_of(scene.subjects).items()]
    assert len(riders) > 8
    for scene, (i, j) in riders:
        rider, support = scene.subjects[i], scene.subjects[j]
        assert world_box(rider)[0, 1] == pytest.approx(SUPPORTS[support.kind] * support.scale)


def test_wishes_for_kinds_are_met_and_mistakes_named():
    scene = sample_scene(np.random.default_rng(0), 5, kinds=("dog", "cat"))
    assert {s.kind for s in scene.subjects} <= {"dog", "cat"}
    with pytest.raises(UserError, match="1 to 12"):
        sample_scene(np.random.default_rng(0), 13)
    with pytest.raises(UserError, match="unicorn"):
        sample_scene(np.random.default_rng(0), 1, kinds=("unicorn",))
    assert len(KINDS) > 24
