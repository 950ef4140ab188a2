"""Rings of views of a mesh: where the camera stands, what it sees, and how it is lit.

The object under test is a figure whose front (z) has a red nose, whose left hand (x) is blue and whose top (y) is
green.
"""

import pickle

import numpy as np
import pytest

from macro.engines.material import FolderMaterial, Options, meshes, turntables
from macro.scenes.render.cameras import LOW, RING, VIEWS
from macro.utils.errors import ItemError

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("mitsuba")

SIZE = 48
RED, GREEN, BLUE = range(3)


def box(extents, at=(0, 0, 0), colour=(128, 128, 128)):
    mesh = trimesh.creation.box(extents)
    mesh.apply_translation(at)
    mesh.visual.vertex_colors = np.array([*colour, 255], np.uint8)
    return mesh


def export(root, mesh, name="thing.ply"):
    (root / "meshes").mkdir(exist_ok=True)
    mesh.export(root / "meshes" / name)
    return FolderMaterial(root, Options(ring=SIZE))


def render(tmp_path, mesh, names, name="thing.ply"):
    turntable = export(tmp_path, mesh, name).turntable(0, 0)
    return {view: turntable.views[view].pixels for view in names}


def covered(pixels):
    """bool[h, w]: what is not backdrop."""
    return np.abs(pixels.astype(int) - turntables.BACKDROP).max(-1) > 2


def middle_of(pixels, channel):
    """(x, y) of the pixels in which a colour stands out, in -1..1 with y up; None where there are none."""
    others = [c for c in range(3) if c != channel]
    rows, columns = np.nonzero(pixels[..., channel].astype(int) - pixels[..., others].max(-1) > 60)
    if len(rows) < 4:
        return None
    return columns.mean() / SIZE * 2 - 1, 1 - rows.mean() / SIZE * 2


@pytest.fixture(scope="module")
def turntable(tmp_path_factory):
    parts = [
        box((1, 1.6, 1)),
        box((0.3, 0.3, 0.3), (0, 0, 0.65), (230, 20, 20)),
        box((0.3, 0.3, 0.3), (0.65, 0, 0), (20, 20, 230)),
        box((0.3, 0.3, 0.3), (0, 0.95, 0), (20, 200, 20)),
    ]
    return export(tmp_path_factory.mktemp("turntable"), trimesh.util.concatenate(parts), "figure.ply").turntable(0, 0)


def test_all_views_are_there(turntable):
    assert turntable.name == "figure"
    assert tuple(turntable.views) == VIEWS and len(turntable.views) == 38
    for image in turntable.views.values():
        assert image.pixels.shape == (SIZE, SIZE, 3) and image.path.endswith("figure.ply")


def test_the_object_is_whole_in_every_image(turntable):
    for image in turntable.views.values():
        seen = covered(image.pixels)
        assert 0.1 < seen.mean() < 0.6
        assert not seen[[0, -1]].any() and not seen[:, [0, -1]].any()


@pytest.mark.parametrize(
    "view, red, blue",
    [
        ("h000", "middle", "right"), ("h090", "left", "middle"), ("h180", None, "left"), ("h270", "right", None),
        ("h045", "left", "right"), ("low000", "middle", "right"), ("low090", "left", "middle"),
        ("top", "down", "right"), ("bottom", "up", "right"),
    ],
)  # fmt: skip
def test_the_camera_goes_round_counter_clockwise(turntable, view, red, blue):
    sides = {"left": (-1, 0), "right": (1, 0), "up": (0, 1), "down": (0, -1), "middle": (0, 0)}
    for channel, side in ((RED, red), (BLUE, blue)):
        found = middle_of(turntable.views[view].pixels, channel)
        if side is None:
            assert found is None
        else:
            steps = [0 if abs(x) < 0.25 else np.sign(x) for x in found]
            assert tuple(steps) == sides[side]


def test_green_is_up(turntable):
    for name, image in turntable.views.items():
        found = middle_of(image.pixels, GREEN)
        if name == "bottom":
            assert found is None
        else:
            assert abs(found[0]) < 0.2
            assert abs(found[1]) < 0.2 if name == "top" else found[1] > 0.3


def test_the_ring_looks_down_and_the_low_ring_hardly(turntable):
    """Of the plane roof more is seen from higher up: the green cube's foot is lower in the image."""
    rise = {name: middle_of(turntable.views[name].pixels, GREEN)[1] for name in ("h000", "low000")}
    assert rise["h000"] < rise["low000"] + 0.02
    assert turntables.camera(0.0, turntables.LOW)[0][1] < turntables.camera(0.0, turntables.ELEVATION)[0][1]


def test_front_and_back_differ_and_neighbours_less(turntable):
    def apart(a, b):
        return np.abs(turntable.views[a].pixels.astype(int) - turntable.views[b].pixels).mean()

    assert apart("h000", "h180") > 2 * apart("h000", "h015") > 0


def test_a_ball_looks_the_same_from_everywhere(tmp_path):
    seen = render(tmp_path, trimesh.creation.icosphere(3), VIEWS)
    shapes = np.stack([covered(pixels) for pixels in seen.values()])
    assert (shapes.any(0) & ~shapes.all(0)).mean() < 0.03  # only its edge, which has corners, comes and goes
    # Radius 1 seen from the distance of the cameras: tan of the angle under which it is seen.
    radius = SIZE / 2 * np.tan(np.arcsin(1 / turntables.DISTANCE)) / np.tan(np.deg2rad(turntables.FOV / 2))
    assert abs(shapes[0].sum() / (np.pi * radius**2) - 1) < 0.04
    rows, columns = np.nonzero(shapes[0])
    assert abs(rows.mean() - (SIZE - 1) / 2) < 0.3 and abs(columns.mean() - (SIZE - 1) / 2) < 0.3


def test_what_is_round_about_its_axis_has_one_outline(tmp_path):
    post = trimesh.creation.cylinder(0.5, 2, sections=96)
    post.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    shapes = [covered(p) for p in render(tmp_path, post, RING).values()]
    assert all((shape != shapes[0]).mean() < 0.01 for shape in shapes)


def test_the_light_stands_still(tmp_path):
    """The sun shines on the front from the left hand's side; the back and the underside are in shade."""
    seen = render(tmp_path, box((1, 1, 1)), ("h000", "h180", "top", "bottom"))
    bright = {name: pixels[SIZE // 2, SIZE // 2].mean() for name, pixels in seen.items()}
    assert bright["h000"] > bright["h180"] + 15 and bright["top"] > bright["bottom"] + 15
    assert min(bright.values()) > 60  # and still to be seen there


def test_faces_are_seen_from_both_sides(tmp_path):
    sheet = trimesh.Trimesh([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    seen = render(tmp_path, sheet, ("h000", "h180"))
    assert all(covered(pixels).mean() > 0.3 for pixels in seen.values())
    assert all(pixels[SIZE // 2, SIZE // 2].mean() > 60 for pixels in seen.values())


def test_a_texture_lies_as_it_should(tmp_path):
    """Red, green over blue, white, on a square whose front is seen."""
    from PIL import Image

    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    corners = [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(image.repeat(8, 0).repeat(8, 1)), baseColorFactor=[255, 255, 255, 255]
    )
    visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], material=material)
    square = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    pixels = render(tmp_path, square, ("low000",), "square.glb")["low000"].astype(int)
    low, high = SIZE // 3, SIZE - SIZE // 3
    assert pixels[low, low, RED] > 2 * pixels[low, low, [GREEN, BLUE]].max()
    assert pixels[low, high, GREEN] > 2 * pixels[low, high, [RED, BLUE]].max()
    assert pixels[high, low, BLUE] > 2 * pixels[high, low, [RED, GREEN]].max()
    assert np.ptp(pixels[high, high]) < 8 and pixels[high, high].min() > 150


def test_colours_come_out_as_they_are(tmp_path, monkeypatch):
    """A surface whose light adds up to `light` shows its colour, brightened by as much."""
    face = box((1, 1, 0.1), colour=(200, 120, 40))
    monkeypatch.setattr(turntables, "SUNLIGHT", 1e-6)
    monkeypatch.setattr(turntables, "HEADLIGHT", 1.0)
    seen = render(tmp_path, face, ("low000",))["low000"]
    np.testing.assert_allclose(seen[SIZE // 2, SIZE // 2], (200, 120, 40), atol=2)


def test_the_same_file_gives_the_same_bytes(tmp_path):
    first = render(tmp_path, box((1, 2, 3)), ("h015", "top"))
    again = render(tmp_path, box((1, 2, 3)), ("h015", "top"))
    assert all((first[name] == again[name]).all() for name in first)


def test_up_and_broken_files_reach_the_source(tmp_path):
    export(tmp_path, box((1, 1, 3)))
    flat, upright = (
        FolderMaterial(tmp_path, Options(ring=SIZE, up=up)).turntable(0, 0).views["h000"].pixels for up in ("y", "z")
    )
    heights = [np.ptp(np.nonzero(covered(pixels))[0]) for pixels in (flat, upright)]
    assert heights[1] > 1.5 * heights[0]
    (tmp_path / "meshes/thing.ply").write_bytes(b"ply\n")
    with pytest.raises(ItemError, match="not a mesh that can be read"):
        FolderMaterial(tmp_path).turntable(0, 0)
    with pytest.raises(ItemError, match="no faces"):
        (tmp_path / "meshes/thing.ply").unlink()
        (tmp_path / "meshes/thing.obj").write_text("v 0 0 0\nv 1 1 1\nl 1 2\n")
        FolderMaterial(tmp_path).turntable(0, 0)


def test_angles_are_those_of_the_names():
    assert [turntables.angles_of(name)[0] for name in (*RING, *LOW)] == [*range(0, 360, 15), *range(0, 360, 30)]
    assert {turntables.angles_of(name)[1] for name in RING} == {turntables.ELEVATION}
    assert {turntables.angles_of(name)[1] for name in LOW} == {turntables.LOW}
    assert turntables.angles_of("top") == (0.0, 90.0) and turntables.angles_of("bottom") == (0.0, -90.0)


def test_views_are_rendered_when_they_are_asked_for_and_travel(tmp_path, monkeypatch):
    turntable = export(tmp_path, box((1, 2, 3))).turntable(0, 0)
    asked = []
    image_of = turntables._image
    monkeypatch.setattr(turntables, "_image", lambda *given: asked.append(given[2:4]) or image_of(*given))
    first = turntable.views["h030"]
    assert turntable.views["h030"] is first and asked == [(30.0, turntables.ELEVATION)]
    again = pickle.loads(pickle.dumps(turntable)).views["h030"]
    np.testing.assert_array_equal(again.pixels, first.pixels)
    assert "h030" in turntable.views and "h031" not in turntable.views


def test_pieces_keep_what_the_renderer_needs(tmp_path):
    export(tmp_path, box((1, 1, 1)))
    (piece,) = meshes.read_mesh(tmp_path / "meshes/thing.ply", tmp_path / "meshes")
    assert piece.texture is None and piece.corners.shape == piece.normals.shape == piece.colours.shape == (12, 3, 3)
