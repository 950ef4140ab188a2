"""Meshes: what is read from each format, where it lies, how it is painted, and what is no mesh."""

import json

import numpy as np
import pytest
from PIL import Image

from macro.engines.material import meshes
from macro.utils.errors import ItemError

trimesh = pytest.importorskip("trimesh")


def box(extents=(1, 2, 3), at=(0, 0, 0), colour=None):
    mesh = trimesh.creation.box(extents)
    mesh.apply_translation(at)
    if colour is not None:
        mesh.visual.vertex_colors = np.array([*colour, 255], np.uint8)
    return mesh


def textured():
    """A square, 2 wide and high, in the plane z = 0; its texture is red, green over blue, white."""
    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    corners = [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]
    uv = [[0, 0], [1, 0], [1, 1], [0, 1]]
    material = trimesh.visual.material.SimpleMaterial(image=Image.fromarray(image))
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def read(path, **options):
    return meshes.read_mesh(path, path.parent, **options)


def corners_of(pieces):
    return np.concatenate([piece.corners.reshape(-1, 3) for piece in pieces])


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb", "gltf", "stl", "off"])
def test_every_format_is_centred_and_scaled(tmp_path, suffix):
    path = tmp_path / f"box.{suffix}"
    exported = box(at=(5, 6, 7)).export(file_type=suffix)
    if suffix == "gltf":
        for name, data in exported.items():
            (tmp_path / name.replace("model", "box")).write_bytes(data)
    else:
        path.write_bytes(exported.encode() if isinstance(exported, str) else exported)
    pieces = read(path)
    corners = corners_of(pieces)
    assert len(corners) == 36
    np.testing.assert_allclose(corners.min(0), -corners.max(0), atol=1e-6)
    np.testing.assert_allclose(corners.max(0), np.array([1, 2, 3]) / np.sqrt(14), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(corners, axis=1).max(), 1, atol=1e-6)
    for piece in pieces:
        np.testing.assert_allclose(np.linalg.norm(piece.normals, axis=-1), 1, atol=1e-5)
        assert ((piece.normals * piece.corners).sum(-1) > 0).all()  # outward


def test_parts_lie_where_their_scene_puts_them(tmp_path):
    scene = trimesh.Scene()
    cube = box((1, 1, 1))
    for x in (0, 3):
        scene.add_geometry(cube, transform=trimesh.transformations.translation_matrix([x, 0, 0]))
    scene.export(tmp_path / "two.glb")
    corners = corners_of(read(tmp_path / "two.glb"))
    radius = np.linalg.norm([2, 0.5, 0.5])
    np.testing.assert_allclose(np.unique(corners[:, 0].round(4)), np.array([-2, -1, 1, 2]) / radius, atol=1e-4)


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_whatever_its_unit(tmp_path, size):
    box((size, 2 * size, 3 * size)).export(tmp_path / "box.obj", digits=15)
    corners = corners_of(read(tmp_path / "box.obj"))
    np.testing.assert_allclose(corners.max(0), np.array([1, 2, 3]) / np.sqrt(14), rtol=1e-5)


def test_edges_stay_sharp_and_balls_round(tmp_path):
    box().export(tmp_path / "box.ply")
    assert set(np.abs(read(tmp_path / "box.ply")[0].normals).max(-1).ravel().round(5)) == {1.0}
    for suffix in ("ply", "stl"):  # with shared corners and without
        trimesh.creation.icosphere(2).export(tmp_path / f"ball.{suffix}")
        ball = read(tmp_path / f"ball.{suffix}")[0]
        np.testing.assert_allclose(ball.normals, ball.corners, atol=0.02)


@pytest.mark.parametrize("up, top", [("y", [0, 1, 0]), ("z", [0, 0, -1])])
def test_up_is_up(tmp_path, up, top):
    """A post on a plate, the post along the file's y: upright, or where z is up on its back."""
    trimesh.util.concatenate([box((2, 0.1, 2)), box((0.2, 2, 0.2), (0, 1, 0))]).export(tmp_path / "post.ply")
    corners = corners_of(read(tmp_path / "post.ply", up=up))
    heights = corners @ np.array(top, float)
    assert np.linalg.norm(np.cross(corners[heights.argmax()], top)) < 0.15  # only the post reaches so far
    assert np.linalg.norm(np.cross(corners[heights.argmin()], top)) > 0.5


def test_where_z_is_up_the_front_looks_along_minus_y(tmp_path):
    trimesh.util.concatenate([box((1, 1, 1)), box((0.1, 0.1, 0.1), (0, -2, 0))]).export(tmp_path / "nose.ply")
    corners = corners_of(read(tmp_path / "nose.ply", up="z"))
    tip = corners[corners[:, 2].argmax()]
    assert tip[2] > 0.5 and np.abs(tip[:2]).max() < 0.2


# ---- colours ----


def test_colours_of_corners_and_faces(tmp_path):
    box(colour=(255, 51, 0)).export(tmp_path / "box.ply")
    np.testing.assert_allclose(read(tmp_path / "box.ply")[0].colours, np.broadcast_to([1, 0.2, 0], (12, 3, 3)))
    painted = box()
    painted.visual.face_colors = np.array([[n * 20, 0, 255, 255] for n in range(12)], np.uint8)
    painted.export(tmp_path / "box.ply")
    colours = read(tmp_path / "box.ply")[0].colours
    assert sorted({round(float(red) * 255) for red in colours[..., 0].ravel()}) == [n * 20 for n in range(12)]


def test_without_colour_it_is_grey(tmp_path):
    box().export(tmp_path / "box.stl")
    assert set(np.unique(read(tmp_path / "box.stl")[0].colours)) == {np.float32(0.72)}


def test_colours_of_materials(tmp_path):
    (tmp_path / "box.mtl").write_text("newmtl red\nKd 0.8 0.2 0.0\n")
    (tmp_path / "box.obj").write_text("mtllib box.mtl\nusemtl red\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    np.testing.assert_allclose(read(tmp_path / "box.obj")[0].colours[0, 0], [0.8, 0.2, 0], atol=3e-3)
    glossy = box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0, 128, 255, 255])
    glossy.visual = trimesh.visual.TextureVisuals(material=material)
    glossy.export(tmp_path / "box.glb")
    np.testing.assert_allclose(read(tmp_path / "box.glb")[0].colours[0, 0], [0, 0.5, 1], atol=3e-3)


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_textures_come_with_their_places(tmp_path, suffix):
    textured().export(tmp_path / f"square.{suffix}")
    (piece,) = read(tmp_path / f"square.{suffix}")
    assert piece.texture.shape == (2, 2, 3) and piece.texture[0, 0].tolist() == [255, 0, 0]
    np.testing.assert_allclose(piece.uv, (piece.corners[..., :2] * np.sqrt(2) + 1) / 2, atol=1e-5)


# ---- what is none ----


OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
NOWHERE = "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
NOWHERE_PLY = (
    b"ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    b"0 0 0\n1 0 0\n0 1 0\ninf 0 0\n3 0 1 2\n3 1 2 3\n"
)
POINT = "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n"


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("x.obj", b"", "not a mesh that can be read|no faces"),
        ("x.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "not a mesh that can be read|no faces"),
        ("x.obj", b"v 0 0 0\nf 1 2 3\n", "not a mesh that can be read"),
        ("x.obj", NOWHERE.encode(), "nowhere"),
        ("x.obj", POINT.encode(), "no faces"),
        ("x.ply", b"not a mesh", "not a mesh that can be read"),
        ("x.glb", b"glTF" + bytes(40), "not a mesh that can be read"),
        ("x.ply", NOWHERE_PLY, "nowhere"),
        ("x.gltf", b"{", "not a mesh that can be read"),
        ("x.stl", b"", "not a mesh that can be read|no faces"),
        ("x.off", b"OFF\n3 1", "not a mesh that can be read|no faces"),
        ("x.obj", f"mtllib gone.mtl\n{OBJ}".encode(), "names 'gone.mtl', which is not there"),
        ("x.obj", f"mtllib ../out.mtl\n{OBJ}".encode(), "names '../out.mtl', which lies outside"),
        ("x.obj", f"mtllib in.mtl\nusemtl a\n{OBJ}".encode(), "names '/etc/hostname', which lies outside"),
    ],
)  # fmt: skip
def test_what_is_no_mesh_is_a_fault_of_one_line(tmp_path, name, content, reason):
    (tmp_path / "out.mtl").write_text("newmtl a\nKd 1 0 0\n")
    folder = tmp_path / "meshes"
    folder.mkdir()
    (folder / "in.mtl").write_text("newmtl a\nmap_Kd /etc/hostname\n")
    (folder / name).write_bytes(content)
    with pytest.raises(ItemError, match=reason) as caught:
        read(folder / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_gltf_that_names_a_file_outside_is_a_fault(tmp_path):
    (tmp_path / "outside.bin").write_bytes(bytes(100))
    (tmp_path / "meshes").mkdir()
    record = {"asset": {"version": "2.0"}, "buffers": [{"uri": "../outside.bin", "byteLength": 100}]}
    (tmp_path / "meshes/x.gltf").write_text(json.dumps(record))
    with pytest.raises(ItemError, match="'../outside.bin', which lies outside"):
        read(tmp_path / "meshes/x.gltf")


def test_too_large_is_a_fault(tmp_path, monkeypatch):
    box().export(tmp_path / "box.ply")
    monkeypatch.setattr(meshes, "MOST_FACES", 11)
    with pytest.raises(ItemError, match="over 11 faces"):
        read(tmp_path / "box.ply")
    monkeypatch.setattr(meshes, "LARGEST", 10)
    with pytest.raises(ItemError, match="too large for one mesh"):
        read(tmp_path / "box.ply")
    textured().export(tmp_path / "square.glb")
    monkeypatch.setattr(meshes, "LARGEST", 10**6)
    monkeypatch.setattr(meshes, "MAX_PIXELS", 3)
    with pytest.raises(ItemError, match="texture of 2 x 2 pixels is too large"):
        read(tmp_path / "square.glb")
