"""A mesh file as coloured triangles, centred in a ball of radius 1.

`trimesh` reads the file and everything it names (materials, textures), which must lie in the material's folder. Colours
come from vertices, faces or materials, or from a texture. Read next: `turntables.py`, which renders the images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from macro.engines.material.files import resolve_sibling
from macro.utils.errors import ItemError, UserError
from macro.utils.images import MAX_PIXELS

MESHES = (".obj", ".ply", ".glb", ".gltf", ".stl", ".off")
LARGEST = 512 << 20  # bytes of a mesh file
MOST_FACES = 2_000_000
SHARP = np.cos(np.deg2rad(40))  # smooth normals stop at angles above this between face and vertex
GREY = (0.72, 0.72, 0.72)  # colour of uncoloured meshes


@dataclass(frozen=True, eq=False)
class Piece:
    """Triangles of one material; f triangles, three vertices each.

    Attributes:
        corners: positions; y is up and the front looks along z. normals: of unit length, outward where the file's are.
        colours: sRGB in 0..1, multiplied with the texture.
        uv: coordinates in `texture`, (0, 0) its lower left; texture: sRGB. None without texture.
    """

    corners: Float32[np.ndarray, "f 3 3"]
    normals: Float32[np.ndarray, "f 3 3"]
    colours: Float32[np.ndarray, "f 3 3"]
    uv: Float32[np.ndarray, "f 3 2"] | None = None
    texture: UInt8[np.ndarray, "h w 3"] | None = None


def read_mesh(path: Path, root: Path, up: str = "y") -> list[Piece]:
    """The pieces of a mesh file.

    Args:
        root: folder that must contain all files that it names.
        up: "y", or "z" for a file whose z is up and whose front looks along -y.

    Raises:
        ItemError: broken, without faces of non-zero area, too large, or naming a file that is missing or outside.
        UserError: trimesh is not installed.
    """
    found = _meshes(path, root)
    if sum(len(mesh.faces) for mesh in found) > MOST_FACES:
        raise ItemError(f"{path}: over {MOST_FACES:,} faces; too many to render")
    corners = np.concatenate([np.zeros((0, 3)), *(mesh.vertices[np.unique(mesh.faces)] for mesh in found)])
    if not len(corners):
        raise ItemError(f"{path}: has no faces to look at")
    if not (np.abs(corners) < 1e100).all():
        raise ItemError(f"{path}: has corners that are nowhere (NaN or infinite)")
    middle = (corners.min(0) + corners.max(0)) / 2
    radius = np.linalg.norm(corners - middle, axis=1).max()
    turn = {"y": np.eye(3), "z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}[up]
    pieces = []
    for mesh in found:
        mesh.vertices = (mesh.vertices - middle) / max(radius, 1e-300) @ turn.T
        mesh.merge_vertices()  # formats without shared vertices would have no smooth surfaces
        mesh.update_faces(mesh.area_faces > 0)  # faces without area have no normal
        if len(mesh.faces):
            pieces.append(_piece(path, mesh))
    if not pieces:
        raise ItemError(f"{path}: has no faces to look at, only lines and points")
    return pieces


def _meshes(path: Path, root: Path) -> list:
    """All triangle meshes of a file, placed by its scene graph."""
    try:
        import trimesh
        from trimesh.resolvers import FilePathResolver
    except ImportError:
        raise UserError("meshes: trimesh is missing; pip install 'macro-compose[engine]'") from None
    refused = []

    class Beside(FilePathResolver):
        """Keeps the errors of its reads, which trimesh swallows."""

        def get(self, name: str) -> bytes:
            if name == "model.gltf":  # requested where the file itself is not JSON
                raise OSError(f"{path}: not JSON")
            try:
                return resolve_sibling(root, path, name.strip()).read_bytes()
            except ItemError as fault:
                refused.append(fault)
                raise OSError(str(fault)) from None

    try:
        if path.stat().st_size > LARGEST:
            raise ItemError(f"{path}: over {LARGEST >> 20} MB, too large for one mesh")
        with path.open("rb") as file:
            # Unprocessed: vertices at no finite position would be dropped silently.
            kind = path.suffix[1:].lower()
            scene = trimesh.load_scene(file, file_type=kind, resolver=Beside(str(path)), process=False)
        meshes = []
        for node in sorted(scene.graph.nodes_geometry):
            transform, name = scene.graph[node]
            mesh = scene.geometry[name]
            if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
                meshes.append(mesh.copy().apply_transform(transform))
    except ItemError:
        raise
    except Exception as error:  # a reader may raise anything on a broken file
        raise refused[0] if refused else ItemError(f"{path}: not a mesh that can be read ({error!r:.120})") from None
    if refused:
        raise refused[0]
    return meshes


def _piece(path: Path, mesh) -> Piece:
    faces = np.asarray(mesh.faces)
    flat, smooth = np.asarray(mesh.face_normals)[:, None], np.asarray(mesh.vertex_normals)[faces]
    normals = np.where((flat * smooth).sum(-1, keepdims=True) > SHARP, smooth, flat)
    corners = np.asarray(mesh.vertices)[faces]
    return Piece(corners.astype(np.float32), normals.astype(np.float32), *_paint(path, mesh, faces))


def _paint(path: Path, mesh, faces: np.ndarray) -> tuple:
    """Colours, texture coordinates, texture."""
    visual = mesh.visual
    plain = np.ones((len(faces), 3, 3), np.float32)
    if visual.kind == "vertex":
        return _colour(visual.vertex_colors[faces]), None, None
    if visual.kind == "face":
        return plain * _colour(visual.face_colors)[:, None], None, None
    if visual.kind != "texture":
        return plain * np.float32(GREY), None, None
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if hasattr(material, "baseColorTexture"):
        factor = material.baseColorFactor
        factor = plain if factor is None else plain * _colour(factor)
    else:
        factor = plain if image is not None else plain * _colour(material.main_color)
    if image is None or visual.uv is None:
        return factor, None, None
    if image.width * image.height > MAX_PIXELS:
        raise ItemError(f"{path}: a texture of {image.width} x {image.height} pixels is too large")
    try:
        texture = np.array(image.convert("RGB"))
    except Exception as error:  # a decoder may raise anything on a broken image
        raise ItemError(f"{path}: a texture of it is broken ({error})") from None
    return factor, np.asarray(visual.uv, np.float32)[faces], texture


def _colour(rgba) -> np.ndarray:
    """0..255 or 0..1 with alpha -> float32 0..1 without."""
    rgba = np.asarray(rgba)
    scale = 255 if rgba.dtype.kind in "ui" else 1
    return (rgba[..., :3] / scale).astype(np.float32)
