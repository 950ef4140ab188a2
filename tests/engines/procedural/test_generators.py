"""Ideas, images, references and images with less in them, from scene graphs."""

import numpy as np

from macro.engines.ground_truth import ground_truths, labels
from macro.engines.material.types import EngineImage
from macro.engines.procedural.generators import write_scene
from macro.engines.provider import ScenePrompt, SceneRequest
from macro.scenes.assets.catalog import KINDS
from macro.scenes.assets.palettes import colour_name
from macro.utils.errors import ItemError
from tests.engines import exact

ASK = SceneRequest(tuple(KINDS), 5)


def test_ideas_follow_from_their_seeds_and_name_their_subjects():
    one, two, again = write_scene([ASK] * 3, [1, 2, 1])
    assert one == again != two
    assert len(one.labels) == 5 and all(label in one.caption for label in one.labels)
    for seed in range(8):
        (idea,) = write_scene([SceneRequest(("dog", "cat"), 4)], [seed])
        seen = ground_truths([EngineImage(np.zeros((128, 128, 3), np.uint8), idea.scene)])[0]
        assert idea.labels == labels(seen) and len(set(idea.labels)) == 4


def test_ideas_keep_to_the_categories():
    (idea,) = write_scene([SceneRequest(("dog", "house", "unicorn"), 4)], [0])
    assert {subject.kind for subject in idea.scene.subjects} <= {"dog", "house"}
    (none,) = write_scene([SceneRequest(("unicorn",), 1)], [0])
    assert isinstance(none, ItemError) and "unicorn" in none.reason


def test_images_come_in_the_sizes_asked_for_and_keep_their_scene():
    provider = exact.provider()
    ideas = write_scene([ASK] * 3, [1, 2, 3])
    drawn = provider.draw(ideas, [32, 64, 32], [0, 0, 0])
    assert [image.pixels.shape[0] for image in drawn] == [32, 64, 32]
    assert [image.scene for image in drawn] == [idea.scene for idea in ideas]
    (fault,) = provider.draw([ScenePrompt("a dream", ("dream",))], [32], [0])
    assert isinstance(fault, ItemError)


def test_a_reference_is_the_subject_alone_from_another_view():
    images = exact.images(4, subjects=3)
    provider = exact.provider()
    regions = exact.regions(images)
    things = [(p, r) for p, found in zip(images, regions, strict=True) for r in found]
    shown = provider.novel_view([p for p, _ in things], [r for _, r in things], [32] * len(things), range(len(things)))
    for reference, (image, region) in zip(shown, things, strict=True):
        (alone,) = reference.scene.subjects
        names = labels(ground_truths([image])[0])
        there = image.scene.subjects[names.index(region.label)]
        assert (alone.kind, alone.palette, alone.texture, alone.decal) == (
            there.kind, there.palette, there.texture, there.decal)  # fmt: skip
        assert abs(alone.yaw - there.yaw) >= 0.45
        assert ground_truths([reference])[0].masks.mean() > 0.1


def test_drift_changes_the_main_colour_at_its_rate():
    images = exact.images(12, subjects=2)
    things = [(p, r) for p, found in zip(images, exact.regions(images), strict=True) for r in found]
    arguments = [p for p, _ in things], [r for _, r in things], [32] * len(things), range(len(things))
    true, drifted = exact.provider().novel_view(*arguments), exact.provider(drift=1.0).novel_view(*arguments)
    for right, wrong in zip(true, drifted, strict=True):
        assert colour_name(right.scene.subjects[0].palette[0]) != colour_name(wrong.scene.subjects[0].palette[0])
        assert right.scene.subjects[0].kind == wrong.scene.subjects[0].kind


def test_without_draws_the_rest_where_it_was():
    images = exact.images(6, subjects=5)
    kept = [regions[1:4] for regions in exact.regions(images)]
    for image, answer in zip(images, exact.provider().remove_subjects(images, kept), strict=True):
        again, found = answer
        assert [r.label for r in found] == list(labels(ground_truths([again])[0]))
        assert [s.kind for s in again.scene.subjects] == [s.kind for s in image.scene.subjects[1:4]]
        (before,), (after,) = ground_truths([image]), ground_truths([again])
        for i in range(3):
            if again.scene.subjects[i].height == image.scene.subjects[i + 1].height:
                np.testing.assert_array_equal(before.amodal[i + 1], after.amodal[i])
