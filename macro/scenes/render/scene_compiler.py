"""From a scene to arrays: every primitive's frames, colours and marks, padded so that scenes stack.

All numpy. The keys of the dict are documented in `compile_scene`; `raycast.py` consumes them.
"""

import functools

import numpy as np

from macro.scenes.assets.catalog import KINDS
from macro.scenes.assets.palettes import to_linear
from macro.scenes.assets.parts import INK, Part, rotation
from macro.scenes.graph import TEXTURES, Camera, Light, Scene, Subject
from macro.scenes.render import primitives
from macro.scenes.render.textures import MARKS

MAX_SUBJECTS = 12
MAX_PARTS = 7
MAX_PRIMITIVES = MAX_SUBJECTS * MAX_PARTS
CELLS = 5.0  # texture cells per unit of a kind
GLASS, LAMPLIGHT = (0.22, 0.32, 0.48), (1.0, 0.93, 0.68)
FAMILIES = {"quadric": primitives.QUADRIC, "box": primitives.BOX, "capsule": primitives.CAPSULE}
AXES = {  # rows u, v, w of a mark from the upright frame's x, y, z
    "front": np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]]),
    "side": np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]),
}


def _bound(part: Part) -> float:
    """Radius of a ball around the part, in units of the kind."""
    x, y, z = np.abs(part.size)
    if part.shape == "box":
        return float(np.sqrt(x * x + y * y + z * z))
    if part.shape == "capsule" or part.profile[2] == -1.0:  # round: a ball, a piece of one, a capsule
        return float(max(x, y, z))
    return float(np.hypot(max(x, z), y))


def _affine(matrix: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """[3, 4] for `matrix @ (p - origin)`."""
    return np.concatenate([matrix, -(matrix @ origin)[:, None]], axis=1)


def _phase(seed: int) -> np.ndarray:
    """[3]: offset of a texture, in its cells."""
    return np.random.default_rng((seed, 1)).uniform(-100, 100, 3)


def _is_dark(rgb) -> bool:
    return float(np.dot(rgb, (0.3, 0.59, 0.11))) < 0.25


def _mark_of(subject: Subject, part: Part, base) -> tuple[str | None, tuple]:
    """A part's mark, and its colour."""
    if part.decal and subject.decal:
        return subject.decal, subject.palette[2]
    if part.mark == "face":
        return "face", (0.95, 0.95, 0.92) if _is_dark(base) else INK
    return part.mark, LAMPLIGHT if _is_dark(base) else GLASS


def _primitive(subject: Subject, part: Part, index: int, phase: np.ndarray) -> dict:
    heading = rotation(y=subject.yaw)
    foot = np.array([subject.position[0], subject.height, subject.position[1]])
    turn, size, centre = np.asarray(part.turn), np.asarray(part.size), np.asarray(part.centre)
    q = np.asarray(part.profile, np.float64)
    if part.shape == "capsule":
        q = np.array([(size[1] - size[0]) / size[0], 0, 0, 0, 0])
        size = size[[0, 0, 2]]
    middle = foot + subject.scale * heading @ centre
    to_kind = heading.T / subject.scale
    textured = part.colour == 0
    base = subject.palette[part.colour] if isinstance(part.colour, int) else part.colour
    mark, mark_colour = _mark_of(subject, part, base)
    upright = AXES[part.axis] @ np.asarray(part.facing).T @ to_kind / part.mark_size
    marked = middle + subject.scale * part.mark_up * heading @ np.asarray(part.facing)[:, 1]
    return {
        "family": np.int32(FAMILIES[part.shape]),
        "shape": q,
        "frame": _affine((turn.T @ to_kind) / size[:, None], middle),
        "bound": np.append(middle, subject.scale * _bound(part)),
        "skin": _affine(to_kind, foot),
        "phase": phase,
        "texture": np.int32(TEXTURES.index(subject.texture) if textured else 0),
        "mark": np.int32(MARKS.index(mark)),
        "mark_frame": _affine(upright, marked),
        "colours": to_linear([base, subject.palette[1], mark_colour]),
        "owner": np.int32(index),
    }


@functools.lru_cache(maxsize=1024)
def _compiled(subject: Subject, index: int) -> dict[str, np.ndarray]:
    """A subject's primitives, stacked, and its `blob`; cached, as frames of a clip and views of a ring share most."""
    parts, phase = KINDS[subject.kind](subject.pose), _phase(subject.seed)
    rows = [_primitive(subject, part, index, phase) for part in parts]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]} | {"blob": _blob(subject, parts)}


@functools.lru_cache(maxsize=1)
def _padding() -> dict[str, np.ndarray]:
    """Invisible primitives, as many as a scene's capacity."""
    empty = {
        "family": np.int32(0),
        "shape": np.zeros(primitives.PARAMETERS),
        "frame": np.zeros((3, 4)),
        "bound": np.array([0.0, 0.0, 0.0, -1.0]),  # a negative radius: no ray tests it
        "skin": np.zeros((3, 4)),
        "phase": np.zeros(3),
        "texture": np.int32(0),
        "mark": np.int32(0),
        "mark_frame": np.zeros((3, 4)),
        "colours": np.zeros((3, 3)),
        "owner": np.int32(-1),
    }
    return {key: np.stack([value] * MAX_PRIMITIVES) for key, value in empty.items()}


@functools.lru_cache(maxsize=256)
def camera_basis(camera: Camera) -> np.ndarray:
    """[3, 3]: rows right, up and forward, unit vectors in the world."""
    forward = np.subtract(camera.target, camera.eye)
    forward = forward / np.linalg.norm(forward)
    right = np.array([forward[2], 0.0, -forward[0]]) / np.hypot(forward[0], forward[2])
    return np.stack([right, np.cross(forward, right), forward])


def sun_direction(light: Light) -> np.ndarray:
    """Unit vector from the ground to the sun."""
    across = np.cos(light.elevation)
    return np.array([np.sin(light.azimuth) * across, np.sin(light.elevation), -np.cos(light.azimuth) * across])


def _blob(subject: Subject, parts: list[Part]) -> np.ndarray:
    """x, z, radius of the soft dark patch under a subject that stands on the ground; radius 0 for none."""
    if subject.height > 0:
        return np.zeros(3)
    low = [p for p in parts if p.centre[1] - abs(p.size[1]) < 0.35]
    reach = np.mean([np.hypot(p.centre[0], p.centre[2]) + min(abs(p.size[0]), abs(p.size[2])) for p in low])
    return np.array([*subject.position, subject.scale * max(0.18, 0.9 * reach)])


def compile_scene(scene: Scene) -> dict[str, np.ndarray]:
    """The arrays of one scene, float32 unless noted; `P = MAX_PRIMITIVES`, lengths in metres.

    Primitives (padded by such with a negative bound): `family` int32[P]; `shape` [P, 5]; `frame` [P, 3, 4]
    from the world into the primitive's own frame; `bound` [P, 4] ball around it; `skin` [P, 3, 4] into the
    kind's frame; `phase` [P, 3] texture offset; `texture`, `mark` int32[P]; `mark_frame` [P, 3, 4];
    `colours` [P, 3, 3] linear base, second and mark colour; `owner` int32[P] index of the subject. Scene:
    `blobs` [12, 3]; `eye` [3]; `basis` [3, 3]; `fov` (0: equirectangular); `sun` [3]; `sunlight` [3];
    `ground` [2, 3]; `ground_texture` int32; `ground_phase` [3]; `sky` [2, 3] horizon and zenith; `haze` [2]
    start and scale in metres; `clouds`, `hills` 0 or 1.
    """
    everybody = [_compiled(subject, index) for index, subject in enumerate(scene.subjects)]
    left = MAX_PRIMITIVES - sum(len(one["owner"]) for one in everybody)
    blobs = np.zeros((MAX_SUBJECTS, 3))
    for index, one in enumerate(everybody):
        blobs[index] = one["blob"]
    camera, light, around = scene.camera, scene.light, scene.surroundings
    golden = np.array([1.0, 1.0 - 0.18 * light.warmth, 1.0 - 0.45 * light.warmth])
    arrays = {
        key: np.concatenate([*(one[key] for one in everybody), padding[:left]]) for key, padding in _padding().items()
    }
    arrays |= {
        "blobs": blobs,
        "eye": np.array(camera.eye),
        "basis": camera_basis(camera),
        "fov": np.array(camera.fov if camera.kind == "perspective" else 0.0),
        "sun": sun_direction(light),
        "sunlight": light.strength * golden,
        "ground": to_linear([around.ground, around.ground_second]),
        "ground_texture": np.array(TEXTURES.index(around.ground_texture), np.int32),
        "ground_phase": _phase(scene.seed),
        "sky": to_linear([around.horizon, around.zenith]),
        "haze": np.array([5.0, 6.0] if around.style == "studio" else [12.0, 60.0]),
        "clouds": np.array(float(around.style != "studio")),
        "hills": np.array(float(around.style == "hills")),
    }
    return {k: v if v.dtype == np.int32 else v.astype(np.float32) for k, v in arrays.items()}


def stack(compiled: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A batch: every array gains a leading axis."""
    return {key: np.stack([scene[key] for scene in compiled]) for key in compiled[0]}
