"""Renders a mesh from all around, in the views `macro.scenes.render.cameras.VIEWS`.

Cameras stand on a sphere around the centre, far enough for the whole object to be in every image. Angle 0 looks at
the front, angles grow counter-clockwise as seen from above; from above, the front is at the bottom of the image, from
below at its top. The light is fixed, so shading changes with the view. `mitsuba` renders, always in its variant
`scalar_rgb`, which needs no compiler on the machine.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from macro.engines.material.meshes import Piece
from macro.engines.material.types import EngineImage
from macro.scenes.render import cameras
from macro.utils.errors import UserError

ELEVATION, LOW = 15.0, 2.0  # of the two rings, degrees above the horizon
POLES = {"top": 90.0, "bottom": -90.0}
VARIANT = "scalar_rgb"
FOV = 35.0  # degrees
DISTANCE = 1.08 / np.sin(np.deg2rad(FOV / 2))  # the ball of radius 1 fits, with a margin
BACKDROP = 225
GAMMA = 2.2
# Strengths, and the direction of sunlight. A headlight at the camera fills the shadows.
SUN, SUNLIGHT, HEADLIGHT = [-0.5, -0.9, -0.8], 0.66, 0.5


class Views(Mapping):
    """View name -> image of a mesh, rendered on first access: a sample uses few of a turntable's views.

    `size` pixels a side, from `samples` rays per pixel; `path` is the mesh's file.
    """

    def __init__(self, pieces: Sequence[Piece], size: int, samples: int, path: Path):
        """
        Raises:
            UserError: mitsuba is not installed.
        """
        self._mitsuba, self._given = _mitsuba(), (pieces, size, samples, path)
        self._scenes: list = []
        self._rendered: dict[str, EngineImage] = {}

    def __reduce__(self):
        return Views, self._given  # mitsuba's objects cannot be pickled

    def __getitem__(self, name: str) -> EngineImage:
        if name not in self._rendered:
            azimuth, elevation = angles_of(name)
            pieces, size, samples, path = self._given
            with self._mitsuba.variant_context(VARIANT):
                self._scenes = self._scenes or _scenes(self._mitsuba, pieces)
                pixels = _image(self._mitsuba, self._scenes, azimuth, elevation, size, samples)
            self._rendered[name] = EngineImage(pixels, path=str(path))
        return self._rendered[name]

    def __iter__(self) -> Iterator[str]:
        return iter(cameras.VIEWS)

    def __len__(self) -> int:
        return len(cameras.VIEWS)


def angles_of(name: str) -> tuple[float, float]:
    """Azimuth and elevation of a view, degrees.

    Raises:
        KeyError: there is no such view.
    """
    if name not in cameras.VIEWS:
        raise KeyError(name)
    if name in POLES:
        return 0.0, POLES[name]
    return float(name[-3:]), LOW if name in cameras.LOW else ELEVATION


def _mitsuba():
    try:
        import mitsuba
    except ImportError:
        raise UserError("meshes: mitsuba is missing; pip install 'macro-compose[engine]'") from None
    if mitsuba.variant() is None:  # otherwise there would be none to switch back to
        mitsuba.set_variant(VARIANT)
    return mitsuba


def _scenes(mi, pieces: Sequence[Piece]) -> list:
    """Two scenes of the object: under the sun, and under the headlight.

    With one light per scene there is nothing to sample: few rays give an image without noise.
    """
    shapes = {f"piece{n}": _mesh(mi, f"piece{n}", piece) for n, piece in enumerate(pieces)}
    scenes = []
    for strength in (SUNLIGHT, HEADLIGHT):
        white = {"type": "rgb", "value": strength * np.pi}  # makes a white surface facing the light `strength` bright
        light = {"type": "directional", "direction": SUN, "irradiance": white}
        scenes.append(mi.load_dict({"type": "scene", "eye": {"type": "direct"}, "light": light} | shapes))
    return scenes


def _mesh(mi, name: str, piece: Piece):
    """A piece as mitsuba's two-sided mesh: files do not agree on which side is out."""
    if piece.texture is None:
        paint = {"type": "mesh_attribute", "name": "vertex_color"}
    else:
        tint = piece.texture / np.float32(255) * piece.colours.mean((0, 1))
        paint = {"type": "bitmap", "bitmap": mi.Bitmap((tint**GAMMA).astype(np.float32)), "raw": True}
    props = mi.Properties()
    props["bsdf"] = mi.load_dict({"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": paint}})
    count = 3 * len(piece.corners)
    mesh = mi.Mesh(name, count, len(piece.corners), props, True, piece.texture is not None)
    if piece.texture is None:
        mesh.add_attribute("vertex_color", 3, np.ravel(piece.colours**GAMMA))
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = np.ravel(piece.corners)
    parameters["vertex_normals"] = np.ravel(piece.normals)
    parameters["faces"] = np.arange(count, dtype=np.uint32)
    if piece.texture is not None:
        upright = np.stack([piece.uv[..., 0], 1 - piece.uv[..., 1]], -1)  # mitsuba counts from the top
        parameters["vertex_texcoords"] = np.ravel(upright)
    parameters.update()
    return mesh


def _image(mi, scenes, azimuth: float, elevation: float, size: int, samples: int) -> UInt8[np.ndarray, "h w 3"]:
    eye, up = camera(azimuth, elevation)
    view = mi.ScalarTransform4f().look_at(list(eye), [0, 0, 0], list(up))
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgba", "rfilter": {"type": "box"}}
    sampler = {"type": "multijitter", "sample_count": samples}
    camera_of = {"type": "perspective", "fov": FOV, "to_world": view, "film": film, "sampler": sampler}
    headlight = mi.traverse(scenes[1])
    headlight["light.to_world"] = view
    headlight.update()
    sensor = mi.load_dict(camera_of)
    light = sum(np.array(mi.render(scene, sensor=sensor, spp=samples, seed=0)) for scene in scenes)
    share = light[..., 3:] / len(scenes)  # of the pixel covered by the object
    light = light[..., :3] + (BACKDROP / 255) ** GAMMA * (1 - share)
    return np.round(255 * np.clip(light, 0, 1) ** (1 / GAMMA)).astype(np.uint8)


def camera(azimuth: float, elevation: float) -> tuple[np.ndarray, np.ndarray]:
    """Position of the camera of a view, and its up vector; angles in degrees."""
    around, rise = np.deg2rad([azimuth, elevation])
    level = np.array([np.sin(around), 0.0, np.cos(around)])
    out = np.cos(rise) * level + np.array([0.0, np.sin(rise), 0.0])
    return DISTANCE * out, np.cos(rise) * np.array([0.0, 1.0, 0.0]) - np.sin(rise) * level
