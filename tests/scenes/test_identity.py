"""A subject looks the same wherever it appears: compared in painted pixels, without light."""

from dataclasses import replace

import numpy as np
import pytest
from scenes.drawing import images, whole_masks

from macro.engines.ground_truth import scene_subset
from macro.scenes import edits, storybook
from macro.scenes.animation import motion
from macro.scenes.assets import appearance
from macro.scenes.layout import layout_sampler


def scenes_of(count, subjects, seed):
    return [layout_sampler.sample_scene(np.random.default_rng([seed, i]), subjects) for i in range(count)]


def same_paint(scenes, others, pairs):
    """Asserts that subjects that show the same part of them show the same paint there; returns how many did."""
    one, two, compared = images(scenes), images(others), 0
    for n, of_scene in enumerate(pairs):
        for i, j in of_scene:
            both = (one["ids"][n] == i + 1) & (two["ids"][n] == j + 1)
            np.testing.assert_array_equal(one["albedo"][n][both], two["albedo"][n][both])
            compared += both.sum() > 8
    return compared


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_elsewhere_in_other_light_and_company_the_paint_is_the_same(count):
    scenes = scenes_of(count, 5, seed=11)
    rng = np.random.default_rng(0)
    others = [
        replace(
            scene_subset(s, [4, 2, 1]), light=appearance.light(rng), surroundings=appearance.surroundings(rng), seed=n
        )
        for n, s in enumerate(scenes)
    ]
    # A rider whose table is gone is put down: it is another view.
    pairs = [
        [(i, j) for j, i in enumerate((4, 2, 1)) if other.subjects[j].height == scene.subjects[i].height]
        for scene, other in zip(scenes, others, strict=True)
    ]
    assert same_paint(scenes, others, pairs) > 2 * count


def test_references_have_the_targets_pattern():
    """The reference turned back to the target's view, pose and place shows the target's paint."""
    scenes = scenes_of(16, 1, seed=12)
    turned = []
    for n, scene in enumerate(scenes):
        reference = layout_sampler.reference_scene(scene, 0, np.random.default_rng(n))
        (alone,), (there,) = reference.subjects, scene.subjects
        assert alone.yaw != there.yaw and reference.seed != scene.seed
        back = {name: getattr(there, name) for name in ("yaw", "pose", "scale", "position", "height")}
        turned.append(replace(reference, subjects=(replace(alone, **back),), camera=scene.camera))
    assert same_paint(scenes, turned, [[(0, 0)]] * 16) == 16


def test_pages_clips_and_edits_keep_the_seed():
    rng = np.random.default_rng(5)
    tale = storybook.tale(rng)
    for leaf in tale.leaves:
        for who, subject in zip(leaf.cast, leaf.scene.subjects, strict=False):
            assert subject.seed == tale.characters[who].look.seed
    script = motion.write(rng, 4)
    shots = [script.at(beat.start + 0.1) for beat in script.beats]
    assert all([s.seed for s in shot.subjects] == [s.seed for s in shots[0].subjects] for shot in shots)
    scene = layout_sampler.sample_scene(rng, 4)
    assert len({s.seed for s in scene.subjects}) == 4
    for operation in edits.OPERATIONS:
        edit = edits.propose(scene, operation, rng)
        for origin, subject in zip(edit.origins, edit.after.subjects, strict=True) if edit else ():
            assert origin is None or subject.seed == scene.subjects[origin - 1].seed


def test_nothing_changes_outside_what_a_removed_subject_covered():
    """Ids and paint: light may change in its shadow (`test_edits.py` bounds that)."""
    scenes = scenes_of(16, 4, seed=13)
    gone = [next(i for i, s in enumerate(scene.subjects) if not edits._carries(scene, s)) for scene in scenes]
    left = [scene_subset(s, [i for i in range(4) if i != out]) for s, out in zip(scenes, gone, strict=True)]
    one, two, whole = images(scenes), images(left), whole_masks(scenes)
    for n, out in enumerate(gone):
        outside = ~whole[n, out] & (one["ids"][n] != out + 1)
        renumbered = np.where(two["ids"][n] > out, two["ids"][n] + 1, two["ids"][n])
        np.testing.assert_array_equal(one["ids"][n][outside], renumbered[outside])
        np.testing.assert_array_equal(one["albedo"][n][outside], two["albedo"][n][outside])
        assert outside.mean() > 0.3
