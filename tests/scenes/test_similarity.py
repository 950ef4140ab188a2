"""Who is who: the same subject in any pose and place, and nobody of another kind or colour."""

from dataclasses import replace

import numpy as np
import pytest

from macro.scenes.assets import appearance
from macro.scenes.assets.palettes import COLOURS
from macro.scenes.graph import TEXTURES, Surroundings
from macro.scenes.layout import layout_sampler
from macro.scenes.similarity import dressed, light_similarity, matched, subject_similarity, surroundings_similarity


@pytest.fixture(scope="module")
def crowd():
    return layout_sampler.sample_scene(np.random.default_rng(3), 10).subjects


def test_pose_and_place_are_free(crowd):
    for one in crowd:
        elsewhere = replace(one, position=(3.0, 1.0), height=0.4, yaw=2.0, pose=0.1, scale=3.0, number=12)
        assert subject_similarity(one, elsewhere) == pytest.approx(1.0)


def test_what_differs_costs(crowd):
    one = replace(crowd[0], palette=(COLOURS["red"], COLOURS["white"], COLOURS["blue"]), texture="plain", decal=None)
    other = {
        "kind": replace(one, kind="house" if one.kind != "house" else "car"),
        "main": replace(one, palette=(COLOURS["blue"], *one.palette[1:])),
        "second": replace(one, palette=(one.palette[0], COLOURS["black"], one.palette[2])),
        "texture": replace(one, texture="dot"),
        "decal": replace(one, decal="star"),
    }
    alike = {name: subject_similarity(one, somebody) for name, somebody in other.items()}
    assert alike["kind"] < 0.2 and alike["main"] < 0.3
    assert 0.6 < alike["texture"] < 0.9 and 0.6 < alike["decal"] < 0.9 and 0.6 < alike["second"] < 0.95
    assert all(subject_similarity(somebody, one) == pytest.approx(alike[name]) for name, somebody in other.items())


def test_clothes_hide_colours_but_not_who_wears_them(crowd):
    cloth = Surroundings(COLOURS["teal"], COLOURS["pink"], "check", COLOURS["teal"], COLOURS["teal"], "studio")
    for one in crowd:
        worn = dressed(one, cloth)
        assert worn.palette == (COLOURS["teal"], COLOURS["pink"], one.palette[2]) and worn.texture == "check"
        assert subject_similarity(one, worn, dressed=True) == pytest.approx(1.0)
        assert subject_similarity(dressed(worn, cloth), worn) == pytest.approx(1.0)


def test_matching_finds_a_shuffled_crowd(crowd):
    order = np.random.default_rng(0).permutation(len(crowd))
    assert matched(crowd, [crowd[i] for i in order]) == [int(np.flatnonzero(order == i)[0]) for i in range(len(crowd))]
    assert matched(crowd[:2], crowd[1:2]) == [None, 0]
    assert matched(crowd[:1], ()) == [None]


def test_places_and_lights():
    rng = np.random.default_rng(1)
    places = [appearance.surroundings(rng) for _ in range(20)]
    for a in places:
        assert surroundings_similarity(a, a) == pytest.approx(1.0)
        texture = next(t for t in TEXTURES if t != a.ground_texture)
        assert surroundings_similarity(a, replace(a, ground_texture=texture)) < 0.8
        assert all(surroundings_similarity(a, b) < 0.95 for b in places if b.ground != a.ground)
    light = appearance.light(rng)
    assert light_similarity(light, light) == pytest.approx(1.0, abs=1e-3)
    assert light_similarity(light, replace(light, azimuth=-light.azimuth, warmth=1.0 - light.warmth)) < 0.8
