"""Ideas, pictures, references and pictures with less in them, from scene graphs."""

import numpy as np

from macro.engines.known import labels, truths
from macro.engines.procedural.draw import write_scene
from macro.engines.stages import Fault, Idea, SceneAsk
from macro.scenes.assets.catalog import KINDS
from macro.scenes.language.lexicon import named_colour
from tests.engines import exact

ASK = SceneAsk(tuple(KINDS), 5)


def test_ideas_follow_from_their_seeds_and_name_their_subjects():
    one, two, again = write_scene([ASK] * 3, [1, 2, 1])
    assert one == again != two
    assert len(one.labels) == 5 and all(label in one.caption for label in one.labels)
    assert one.labels == labels(one.scene)


def test_ideas_keep_to_the_categories():
    (idea,) = write_scene([SceneAsk(("dog", "house", "unicorn"), 4)], [0])
    assert {subject.kind for subject in idea.scene.subjects} <= {"dog", "house"}
    (none,) = write_scene([SceneAsk(("unicorn",), 1)], [0])
    assert isinstance(none, Fault) and "unicorn" in none.reason


def test_pictures_come_in_the_sizes_asked_for_and_keep_their_scene():
    stages = exact.stages()
    ideas = write_scene([ASK] * 3, [1, 2, 3])
    drawn = stages.draw(ideas, [32, 64, 32], [0, 0, 0])
    assert [picture.pixels.shape[0] for picture in drawn] == [32, 64, 32]
    assert [picture.scene for picture in drawn] == [idea.scene for idea in ideas]
    (fault,) = stages.draw([Idea("a dream", ("dream",))], [32], [0])
    assert isinstance(fault, Fault)


def test_a_reference_is_the_subject_alone_from_another_view():
    pictures = exact.pictures(4, subjects=3)
    stages = exact.stages()
    regions = exact.regions(pictures)
    things = [(p, r) for p, found in zip(pictures, regions, strict=True) for r in found]
    shown = stages.redraw([p for p, _ in things], [r for _, r in things], [32] * len(things), range(len(things)))
    for reference, (picture, region) in zip(shown, things, strict=True):
        (alone,) = reference.scene.subjects
        there = next(s for s, name in zip(picture.scene.subjects, labels(picture.scene), strict=True)
                     if name == region.label)  # fmt: skip
        assert (alone.kind, alone.palette, alone.texture, alone.decal) == (
            there.kind, there.palette, there.texture, there.decal)  # fmt: skip
        assert abs(alone.yaw - there.yaw) >= 0.45
        assert truths([reference])[0].masks.mean() > 0.1


def test_drift_changes_the_main_colour_at_its_rate():
    pictures = exact.pictures(12, subjects=2)
    things = [(p, r) for p, found in zip(pictures, exact.regions(pictures), strict=True) for r in found]
    arguments = [p for p, _ in things], [r for _, r in things], [32] * len(things), range(len(things))
    true, drifted = exact.stages().redraw(*arguments), exact.stages(drift=1.0).redraw(*arguments)
    for right, wrong in zip(true, drifted, strict=True):
        assert named_colour(right.scene.subjects[0].palette[0]) != named_colour(wrong.scene.subjects[0].palette[0])
        assert right.scene.subjects[0].kind == wrong.scene.subjects[0].kind


def test_without_draws_the_rest_where_it_was():
    pictures = exact.pictures(6, subjects=5)
    kept = [regions[1:4] for regions in exact.regions(pictures)]
    for picture, regions, answer in zip(pictures, kept, exact.stages().without(pictures, kept), strict=True):
        again, found = answer
        assert [r.label for r in found] == [r.label for r in regions]
        assert [s.kind for s in again.scene.subjects] == [s.kind for s in picture.scene.subjects[1:4]]
        (before,), (after,) = truths([picture]), truths([again])
        for i in range(3):
            if again.scene.subjects[i].height == picture.scene.subjects[i + 1].height:
                np.testing.assert_array_equal(before.amodal[i + 1], after.amodal[i])
