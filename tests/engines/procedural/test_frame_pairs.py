"""Two frames of one scene: who is in both, how much stands still, what counts as a change, and how it is told."""

from dataclasses import replace

import numpy as np
import pytest
from engines.videos import SIZE, doing, frames, scene_of

from macro.engines.ground_truth import box_of, ground_truths
from macro.engines.material.types import EngineImage
from macro.engines.procedural.frame_pairs import BACKGROUND, changed, match, narrate, static_share
from macro.engines.procedural.videos import rendered_frames
from macro.engines.provider import InterleavedCaption
from macro.scenes.language.captions import count_phrase
from macro.scenes.layout import layout_sampler
from macro.utils.errors import ItemError

SCENE = scene_of(1, 3, ("robot", "tree", "car"))
AWAY = replace(SCENE.subjects[1], position=(40.0, 3.0))


@pytest.fixture(scope="module")
def still():
    return frames(SCENE)[0]


def test_things_are_matched_by_their_looks(still):
    turned = doing(SCENE, 0, yaw=SCENE.subjects[0].yaw + 1.2)
    reordered = replace(turned, subjects=turned.subjects[::-1])
    gone = replace(turned, subjects=(turned.subjects[0], AWAY, turned.subjects[2]))
    (later, without) = frames(reordered, gone)
    found, fewer = match([still, still], [later, without])
    kinds = [subject.kind for subject in SCENE.subjects]
    assert [m.label for m in found] == kinds[::-1]
    then, now = ground_truths([still, later])
    for each in found:
        place = kinds.index(each.label)
        assert each.before.box == box_of(then, place) and each.after.box == box_of(now, 2 - place)
    assert [m.label for m in fewer] == [kinds[0], kinds[2]]


def test_frames_are_rendered_alone_as_together():
    scenes = [SCENE, doing(SCENE, 0, yaw=1.0), doing(SCENE, 1, yaw=2.0)]
    alone, together = rendered_frames(scenes, SIZE, 1), list(rendered_frames(scenes, SIZE, 1))
    assert len(alone) == len(together) == 3
    for place in (-1, 0, 1):
        np.testing.assert_array_equal(alone[place].pixels, together[place].pixels)
        assert alone[place].scene == scenes[place] and alone[place] is alone[place]
    with pytest.raises(IndexError):
        alone[3]


def test_another_scene_has_nothing_in_common(still):
    (other,) = frames(scene_of(4, 2, ("cake", "drum")))
    assert match([still], [other]) == [[]]
    assert changed([still], [other]) == [False]


def test_stillness_counts_what_stays(still):
    moved = SCENE
    values = []
    for place, subject in enumerate(SCENE.subjects):
        moved = doing(moved, place, yaw=subject.yaw + 0.8)
        values.append(moved)
    lit = layout_sampler.jitter(SCENE, np.random.default_rng(0))
    lit = replace(SCENE, light=lit.light)
    panned = replace(SCENE, camera=replace(SCENE.camera, target=(0.1, 0.35, 0.0)))
    images = frames(*values, lit, panned)
    found = static_share([still] * 5, images)
    assert found[3] == 1.0 and found[4] == 0.0
    assert 1 > found[0] > found[1] > found[2] > 0
    # All have turned: only background is left, of which each pixel counts for little.
    then, now = ground_truths([still, images[2]])
    bare = (~then.masks.any(0) & ~now.masks.any(0)).sum()
    things = (then.masks.any(0) | now.masks.any(0)).sum()
    assert found[2] == pytest.approx(BACKGROUND * bare / (things + BACKGROUND * bare))


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"yaw": 0.6}, True), ({"yaw": 2 * np.pi}, False), ({"yaw": 0.1}, False), ({"pose": 0.5}, True),
        ({"position": (0.5, 0.0)}, True), ({"position": (0.02, 0.0)}, False), ({"height": 0.4}, True),
    ],
)  # fmt: skip
def test_changes_are_of_action_pose_or_place(still, changes, counts):
    (name, by), subject = *changes.items(), SCENE.subjects[0]
    old = getattr(subject, name)
    new = (old + by) % 1 if name == "pose" else tuple(np.add(old, by).tolist()) if name == "position" else old + by
    assert changed([still], frames(doing(SCENE, 0, **{name: new}))) == [counts]


def test_light_and_camera_are_no_change(still):
    lit = replace(SCENE, light=replace(SCENE.light, azimuth=-SCENE.light.azimuth))
    panned = replace(SCENE, camera=replace(SCENE.camera, target=(0.1, 0.35, 0.0)))
    assert changed([still] * 2, frames(lit, panned)) == [False, False]


def test_a_tale_names_every_match_once_and_says_what_each_did(still):
    subject, car = SCENE.subjects[0], [s.kind for s in SCENE.subjects].index("car")
    x, z = subject.position
    cx, cz = SCENE.subjects[car].position
    scenes = {
        "moves towards the car": doing(SCENE, 0, position=(0.15 * x + 0.85 * cx, 0.15 * z + 0.85 * cz)),
        "turns round": doing(SCENE, 0, yaw=subject.yaw + 1),
        "changes its pose": doing(SCENE, 0, pose=(subject.pose + 0.5) % 1),
        "jumps up": doing(SCENE, 0, height=0.5),
    }
    images = frames(*scenes.values())
    before = [still] * len(images)
    tales = narrate(before, images, match(before, images), list(range(len(images))))
    for says, tale in zip(scenes, tales, strict=True):
        assert isinstance(tale, InterleavedCaption)
        assert tale.caption.endswith(f". the {subject.kind} {says}.")
        assert sorted(tale.phrases.values()) == [1, 2, 3]
        assert all(count_phrase(tale.caption, phrase) == 1 for phrase in tale.phrases)


def test_a_still_scene_and_one_who_has_no_other_name_have_no_deeds_to_tell(still):
    alike = scene_of(2, 2, ("robot",))
    turned = doing(alike, 0, yaw=alike.subjects[0].yaw + 1.5)
    first, second = frames(alike, turned)
    tales = narrate([still, first], [still, second], match([still, first], [still, second]), [0, 0])
    assert changed([still, first], [still, second]) == [False, True]
    for tale in tales:
        assert not {"turns", "moves", "jumps", "changes"} & set(tale.caption.split())
        assert all(count_phrase(tale.caption, phrase) == 1 for phrase in tale.phrases)


def test_frames_that_cannot_be_compared_are_faults(still):
    large, unknown = EngineImage(still.pixels.repeat(2, 0), SCENE), EngineImage(still.pixels)
    for stage in (match, static_share, changed):
        sizes, scene, fine = stage([still] * 3, [large, unknown, still])
        assert isinstance(sizes, ItemError) and "not of one size" in sizes.reason
        assert isinstance(scene, ItemError) and "not known" in scene.reason
        assert not isinstance(fine, ItemError)
