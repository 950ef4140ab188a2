"""The scene graph: subjects, camera, light and surroundings, as frozen dataclasses.

Positions are metres with y up, x to the right and z away from the default camera; angles are radians; colours are
sRGB in 0..1. Relations between subjects are computed from the rendered image (`ground_truth/relations.py`).

Read next: `assets/palettes.py` (named colours), `assets/catalog.py` (how a kind is built), `layout/layout_sampler.py`
(how scenes are sampled), `render/raycast.py` (how they are rendered).
"""

from dataclasses import dataclass

RGB = tuple[float, float, float]

TEXTURES = ("plain", "stripe", "check", "dot", "noise")
DECALS = ("spot", "ring", "star", "heart")


@dataclass(frozen=True)
class Subject:
    """One subject of the scene.

    Attributes:
      kind: a key of `kinds.KINDS`, e.g. "dog".
      palette: main, second and accent colour, sRGB in 0..1; `palettes.colour_name` names them.
      texture: the pattern of the main and second colour, one of `TEXTURES`.
      decal: a small emblem in the accent colour, one of `DECALS`, or None.
      scale: metres per unit of the kind; kinds are about one unit in their largest extent.
      position: (x, z) of its foot on the ground plane, metres.
      height: y of its base, metres; above 0 when it stands on another subject.
      yaw: rotation about the vertical, radians; at 0 it faces the default camera (towards -z).
      pose: 0..1, the kind's own pose parameter (a leg swings, a head turns, an arm lifts).
      number: 1..12, its number in the plan and in the sentence.
      seed: offsets its texture. It belongs to the subject: wherever the subject appears, its pattern is the same.
    """

    kind: str
    palette: tuple[RGB, RGB, RGB]
    texture: str
    decal: str | None
    scale: float
    position: tuple[float, float]
    height: float
    yaw: float
    pose: float
    number: int
    seed: int


@dataclass(frozen=True)
class Camera:
    """Where the image is taken from.

    Attributes:
      kind: "perspective" or "equirectangular" (the whole sphere around `eye`, `target` in the middle).
      eye: position in metres.
      target: the point in the middle of the image.
      fov: vertical field of view in radians (perspective only).
    """

    kind: str
    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    fov: float


@dataclass(frozen=True)
class Light:
    """The sun: `azimuth` (0 = from behind the default camera, positive = from the right) and `elevation` in
    radians, `warmth` 0 (white) .. 1 (golden), `strength` about 1.
    """

    azimuth: float
    elevation: float
    warmth: float
    strength: float


@dataclass(frozen=True)
class Surroundings:
    """Ground and sky.

    `ground_texture` is one of `TEXTURES` (cells of about a metre, mixing `ground` and `ground_second`);
    `style` is "open" (plain horizon), "hills" or "studio" (a seamless backdrop).
    """

    ground: RGB
    ground_second: RGB
    ground_texture: str
    zenith: RGB
    horizon: RGB
    style: str


@dataclass(frozen=True)
class Scene:
    """All that determines an image. `seed` offsets the textures of ground and sky."""

    subjects: tuple[Subject, ...]
    camera: Camera
    light: Light
    surroundings: Surroundings
    seed: int
