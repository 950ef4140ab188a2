"""Rings of cameras, places all round, and perspective views cut from panoramas against those rendered directly."""

from dataclasses import replace

import numpy as np
import pytest
from scenes.drawing import images

from macro.scenes.graph import Camera
from macro.scenes.layout.placement import project, world_box
from macro.scenes.render import cameras
from macro.scenes.render.batches import render_all
from macro.utils.errors import UserError


@pytest.fixture(scope="module")
def objects():
    return [cameras.turntable(np.random.default_rng(seed), 1 + seed % 3) for seed in range(3)]


@pytest.fixture(scope="module")
def place():
    scene = cameras.place(np.random.default_rng(5))
    return scene, next(render_all([scene], 128, 256, 2))


def test_names_of_the_views():
    assert len(cameras.VIEWS) == len(set(cameras.VIEWS)) == 38
    assert cameras.RING[:3] == ("h000", "h015", "h030") and cameras.LOW[1] == "low030"


def test_cameras_go_round_counter_clockwise_at_one_height_and_distance(objects):
    for scene in objects:
        seen = cameras.around(scene, 20.0)
        assert set(seen) == set(cameras.VIEWS)
        away = {n: np.subtract(s.camera.eye, s.camera.target) for n, s in seen.items()}
        lengths = [np.linalg.norm(v) for v in away.values()]
        np.testing.assert_allclose(lengths, lengths[0], rtol=1e-6)
        angles = np.array([np.arctan2(away[n][0], -away[n][2]) for n in cameras.RING])
        np.testing.assert_allclose(np.diff(np.unwrap(angles)), np.deg2rad(15), atol=1e-6)
        assert abs(angles[0]) < 1e-9  # in front, where -z is
        rises = [np.rad2deg(np.arcsin(away[n][1] / lengths[0])) for n in ("h000", "h195", "low090", "top", "bottom")]
        np.testing.assert_allclose(rises, [20, 20, 2, 90, -90], atol=0.1)


def test_nothing_but_the_camera_changes(objects):
    for name, seen in cameras.around(objects[1], 10.0).items():
        assert replace(seen, camera=objects[1].camera) == objects[1], name


def test_all_of_the_object_is_in_every_image_and_fills_it(objects):
    for scene in objects:
        seen = cameras.around(scene, 15.0)
        ids = images([seen[name] for name in (*cameras.RING[::6], "low030", "low240", *cameras.POLES)])["ids"] > 0
        assert ids.any((1, 2)).all()
        edges = np.concatenate([ids[:, 0], ids[:, -1], ids[:, :, 0], ids[:, :, -1]], 1)
        assert not edges.any()
        widest = max(int(max(seen.any(0).sum(), seen.any(1).sum())) for seen in ids)
        assert widest > 0.6 * 64


def test_from_above_the_front_is_at_the_lower_edge_from_below_at_the_upper(objects):
    seen = cameras.around(objects[0], 15.0)
    middle = np.array(seen["top"].camera.target)
    front = middle + [0.0, 0.0, -0.1]
    assert project(seen["top"].camera, front)[1] > 0.5 > project(seen["bottom"].camera, front)[1]
    for name in ("top", "bottom"):
        right = project(seen[name].camera, middle + [0.1, 0.0, 0.0])[0]
        assert right > 0.5


def test_subjects_of_a_turntable_stand_apart():
    for seed in range(12):
        scene = cameras.turntable(np.random.default_rng(seed), 3)
        assert scene.subjects[0].kind in cameras.FRONTED and scene.subjects[0].yaw == 0
        boxes = [(s, world_box(s)) for s in scene.subjects]
        for n, (one, a) in enumerate(boxes):
            for other, b in boxes[:n]:
                if one.height == other.height:
                    assert (np.maximum(a[0] - b[1], b[0] - a[1])[[0, 2]] > 0).any()


def test_same_seed_same_object_and_place():
    for make in (cameras.turntable, cameras.place):
        assert make(np.random.default_rng(4)) == make(np.random.default_rng(4))


def test_every_quarter_of_a_place_shows_something(place):
    ids = place[1]["ids"]
    for start in range(0, 256, 32):
        assert (np.roll(ids, -start, 1)[:, :64] > 0).sum() > 20


VIEWED = [(0.0, 0.0), (45.0, 8.0), (170.0, -10.0), (300.0, 3.0), (20.0, 85.0), (0.0, -90.0)]


def test_views_cut_from_a_panorama_are_those_of_a_camera_there(place):
    scene, seen = place
    direct = images([cameras.looking(scene, *at, 90.0) for at in VIEWED], samples=4)["pixels"]
    for at, expected in zip(VIEWED, direct, strict=True):
        got = cameras.perspective_view(seen["pixels"], *at, 90.0, 64)
        assert np.abs(got.astype(int) - expected).mean() < 4, at
        wrong = cameras.perspective_view(seen["pixels"], at[0] + 30, at[1], 90.0, 64)
        if abs(at[1]) < 45:
            assert np.abs(wrong.astype(int) - expected).mean() > 8, at


def test_a_panorama_turned_is_a_view_turned():
    panorama = np.random.default_rng(0).integers(0, 256, (32, 64, 3)).astype(np.uint8)
    turned = np.roll(panorama, -16, 1)  # a quarter to the right
    for pitch in (0.0, 30.0, -80.0):
        one = cameras.perspective_view(panorama, 90.0, pitch, 70.0, 16)
        other = cameras.perspective_view(turned, 0.0, pitch, 70.0, 16)
        np.testing.assert_allclose(one, other, atol=1)


def test_directions_by_a_panorama_that_is_painted_with_them():
    rows, columns = np.mgrid[:180, :360]
    panorama = np.stack([columns * 255 / 360, 255 - rows * 255 / 180, 0 * rows], -1).astype(np.uint8)
    for yaw, pitch in ((0, 0), (60, 20), (-120, -45)):
        x, y, _ = cameras.perspective_view(panorama, float(yaw), float(pitch), 40.0, 33)[16, 16].astype(float)
        assert x * 360 / 255 - 180 == pytest.approx(yaw, abs=3) and y * 180 / 255 - 90 == pytest.approx(pitch, abs=3)
    over = cameras.perspective_view(panorama, 0.0, 100.0, 40.0, 33)  # over the top, upside down
    behind = cameras.perspective_view(panorama, 180.0, 80.0, 40.0, 33)
    np.testing.assert_allclose(over, behind[::-1, ::-1], atol=1)


def test_large_panoramas_are_averaged_not_skipped():
    chequers = np.indices((512, 1024)).sum(0) % 2 * 255
    panorama = np.repeat(chequers[..., None], 3, -1).astype(np.uint8)
    view = cameras.perspective_view(panorama, 10.0, 5.0, 90.0, 16)
    assert np.abs(view.astype(int) - 127).max() < 40


def test_what_cannot_be_is_said():
    rng, panorama = np.random.default_rng(0), np.zeros((32, 64, 3), np.uint8)
    with pytest.raises(UserError, match="1 to 3"):
        cameras.turntable(rng, 4)
    with pytest.raises(UserError, match="4 to 12"):
        cameras.place(rng, 3)
    with pytest.raises(UserError, match="twice as wide"):
        cameras.perspective_view(panorama[:, :60], 0.0, 0.0, 90.0, 8)
    with pytest.raises(UserError, match="fov"):
        cameras.perspective_view(panorama, 0.0, 0.0, 180.0, 8)
    scene = cameras.place(rng)
    with pytest.raises(ValueError, match="pitch"):
        cameras.looking(scene, 0.0, 91.0, 90.0)
    assert isinstance(cameras.looking(scene, 0.0, 90.0, 90.0).camera, Camera)
