"""What has happened between scenes: single moves, and scripts whose actors are known."""

import re
from dataclasses import replace

import numpy as np
import pytest

from macro.scenes.animation import motion, narration
from macro.scenes.graph import Scene


def middles(script):
    return [script.at((beat.start + beat.stop) / 2) for beat in script.beats]


def moved(scene: Scene, which: int, **changes) -> Scene:
    subjects = list(scene.subjects)
    subjects[which] = replace(subjects[which], **changes)
    return replace(scene, subjects=tuple(subjects))


@pytest.fixture(scope="module")
def scene():
    """A dog two metres left of a tree, three metres in front of a rocket."""
    start = middles(motion.write(np.random.default_rng(0), 2))[0]
    kinds, places = ("dog", "tree", "rocket"), ((0.0, 0.0), (2.0, 0.0), (0.0, 3.0))
    subjects = tuple(
        replace(s, kind=kind, position=place, height=0.0, yaw=0.0)
        for s, kind, place in zip(start.subjects, kinds, places, strict=False)
    )
    assert len(subjects) == 3
    return replace(start, subjects=subjects)


def words_of(before, after):
    return [(after.subjects[c.subject].kind, c.words) for c in narration.changes(before, after)]


def test_single_moves(scene):
    assert words_of(scene, scene) == []
    assert words_of(scene, moved(scene, 0, position=(1.2, 0.0))) == [("dog", "walks towards the tree")]
    assert words_of(scene, moved(scene, 0, position=(-1.0, 0.2))) == [("dog", "walks away from the tree")]
    assert words_of(scene, moved(scene, 0, height=0.6)) == [("dog", "jumps up")]
    assert words_of(moved(scene, 0, height=0.6), scene) == [("dog", "comes down")]
    assert words_of(scene, moved(scene, 2, height=1.0)) == [("rocket", "rises into the air")]
    assert words_of(scene, moved(scene, 2, yaw=1.5)) == [("rocket", "turns round")]
    assert words_of(scene, moved(scene, 2, yaw=2 * np.pi)) == []
    assert words_of(scene, moved(scene, 1, position=(2.0, -2.0)))[0][1].startswith("moves")


def test_who_comes_and_goes(scene):
    fewer = replace(scene, subjects=scene.subjects[:2])
    assert [c.words for c in narration.changes(scene, fewer)] == ["is gone"]
    assert words_of(fewer, scene) == [("rocket", "comes")]
    other = moved(scene, 0, texture="dot" if scene.subjects[0].texture != "dot" else "plain")
    assert sorted(c.words for c in narration.changes(scene, other)) == ["comes", "is gone"]


def test_two_of_a_kind_are_told_apart_by_colour(scene):
    two = moved(scene, 2, kind="dog", palette=scene.subjects[1].palette)
    called = set(narration.names((two,)).values())
    assert "dog" not in called and len(called) == 3


@pytest.mark.parametrize("seed", range(8))
def test_only_who_acts_is_told_of(seed):
    script = motion.write(np.random.default_rng(seed), 10)
    scenes = middles(script)
    for n, (before, after) in enumerate(zip(scenes[:-1], scenes[1:], strict=True)):
        acting = {script.beats[n].action.actor, script.beats[n + 1].action.actor}
        assert {c.subject for c in narration.changes(before, after)} <= acting


@pytest.mark.parametrize("seed", range(8))
def test_stories_are_short_begin_with_the_place_and_the_next_frame_follows_them(seed):
    scenes = middles(motion.write(np.random.default_rng(seed), 13, episodes=2))
    for stop in (1, 5, 12, len(scenes) - 1):
        text = narration.summarise_changes(scenes[:stop], np.random.default_rng(seed))
        assert 3 < len(text.split()) < 50 and text.startswith("on ") and "<" not in text
        if narration.changes(scenes[stop - 1], scenes[stop]):
            known = len(scenes[stop].subjects) == len(scenes[stop - 1].subjects)
            moved_on = not narration.tracked_subjects(scenes[stop - 1], scenes[stop])
            assert narration.follows(scenes[:stop], scenes[stop], text) == (1.0 if known and not moved_on else 0.5)


@pytest.mark.parametrize("seed", range(24))
def test_whoever_acts_was_introduced(seed):
    """"the dog" only after "a dog"; shortened stories too."""
    scenes = middles(motion.write(np.random.default_rng(seed), 13, episodes=1 + seed % 3))
    kinds = "|".join({s.kind for scene in scenes for s in scene.subjects})
    for most in (49, 25, 12):
        text = narration.summarise_changes(scenes, np.random.default_rng(seed), most)
        for match in re.finditer(rf"\bthe ({kinds})\b", text):
            assert re.search(rf"\ban? {match[1]}\b", text[: match.start()]), text


def test_another_scene_than_the_next_follows_less(scene):
    after = moved(scene, 0, position=(1.2, 0.0))
    assert "the dog walks towards the tree." in narration.summarise_changes((scene, after), np.random.default_rng(0))
    text = narration.summarise_changes((scene,), np.random.default_rng(0))
    assert "nobody" not in text and "dog" in text and "walks" not in text
    assert narration.follows((scene,), after, text) == 1.0
    stranger = replace(after, subjects=(*after.subjects, replace(after.subjects[0], kind="whale")))
    assert narration.follows((scene,), stranger, text) == 0.5
    assert narration.follows((scene,), scene, text) == 0.2


def test_what_goes_on_is_told_once(scene):
    higher = [moved(scene, 2, height=height) for height in (0.0, 0.5, 1.0)]
    assert narration.summarise_changes(higher, np.random.default_rng(0)).count("rises") == 1


def test_a_shortened_story_does_not_repeat_itself(scene):
    """The turn between two jumps strikes least: where it is left out, the jumps stand side by side."""
    up, turned = moved(scene, 0, height=0.6), moved(scene, 0, height=0.6, yaw=1.0)
    frames = (scene, up, turned, moved(turned, 0, height=1.2))
    told = [narration.summarise_changes(frames, np.random.default_rng(0), most) for most in (49, 25)]
    assert told[0].count("jumps up") == 2 and "turns" in told[0]
    assert told[1].count("jumps up") == 1 and "turns" not in told[1]


def test_nobody_moves(scene):
    assert narration.summarise_changes((scene, scene), np.random.default_rng(0)).endswith("nobody moves.")
    with pytest.raises(ValueError, match="no scenes"):
        narration.summarise_changes((), np.random.default_rng(0))
