"""Scripts: rigid, continuous in time within a place, and with a log that says what is so at its moments."""

from dataclasses import replace

import numpy as np
import pytest

from macro.scenes.animation import motion
from macro.scenes.assets.catalog import KINDS
from macro.utils.errors import UserError

SCRIPTS = [motion.write(np.random.default_rng(seed), 14, episodes=1 + seed % 2) for seed in range(10)]
BEATS = [(script, episode, beat) for script in SCRIPTS for episode in script.episodes for beat in episode.beats]


def states(scene):
    return np.array([[*s.position, s.height, s.yaw] for s in scene.subjects])


def test_kinds_that_move_and_stand_exist():
    assert set(motion.MOVERS) | set(motion.PROPS) <= set(KINDS)
    assert not set(motion.MOVERS) & set(motion.PROPS)
    assert {motion.going(kind) for kind in motion.MOVERS} == {"walks", "drives", "rolls"}


def test_same_seed_same_script():
    assert motion.write(np.random.default_rng(3), 6) == motion.write(np.random.default_rng(3), 6)


def test_beats_follow_one_another_and_nobody_leaps():
    for script in SCRIPTS:
        for episode in script.episodes:
            for before, after in zip(episode.beats[:-1], episode.beats[1:], strict=True):
                assert before.stop == after.start
                end, start = script.at(before.stop - 1e-6), script.at(after.start)
                np.testing.assert_allclose(states(end), states(start), atol=1e-3)
                assert end.camera != start.camera  # a cut
        assert script.episodes[-1].beats[-1].stop == pytest.approx(14, rel=0.2)


def test_motion_is_rigid_and_only_who_acts_moves():
    for script, episode, beat in BEATS:
        first = script.at(beat.start)
        for share in (0.0, 0.3, 0.5, 0.99):
            scene = script.at(beat.start + share * (beat.stop - beat.start))
            for n, (now, then, cast) in enumerate(zip(scene.subjects, first.subjects, episode.cast, strict=True)):
                if n != beat.action.actor:
                    assert now == then
                assert replace(now, position=cast.position, height=0.0, yaw=cast.yaw) == cast


def test_nobody_walks_through_anybody():
    for script, _, beat in BEATS:
        if beat.action.name not in ("goes", "leaves"):
            continue
        for share in np.linspace(0, 0.999, 12):
            scene = script.at(beat.start + share * (beat.stop - beat.start))
            here = np.array(scene.subjects[beat.action.actor].position)
            others = [s.position for n, s in enumerate(scene.subjects) if n != beat.action.actor and s.height == 0]
            assert np.linalg.norm(np.array(others) - here, axis=1).min() > 0.35


def test_all_deeds_are_done():
    done = {beat.action.name for script in SCRIPTS for beat in script.beats}
    assert done == set(motion.ACTIONS)


def test_episodes_have_other_casts_and_places():
    script = motion.write(np.random.default_rng(0), 9, episodes=3)
    assert sorted(len(e.beats) for e in script.episodes) == [2, 2, 5]
    kinds = [s.kind for e in script.episodes for s in e.cast]
    assert len(set(kinds)) == len(kinds)


def test_frames_come_at_an_even_rate():
    scenes, seconds = motion.frames(SCRIPTS[0], 4.0)
    assert len(scenes) == len(seconds) == int(SCRIPTS[0].beats[-1].stop * 4)
    np.testing.assert_allclose(np.diff(seconds), 0.25)
    assert scenes[7] == SCRIPTS[0].at(seconds[7])


def test_what_cannot_be_is_said():
    with pytest.raises(UserError, match="too few"):
        motion.write(np.random.default_rng(0), 3, episodes=2)
    with pytest.raises(ValueError, match="runs from"):
        SCRIPTS[0].at(-0.1)
