"""Outside-in views of an object and inside-out views from one point: scenes whose cameras are known exactly.

`turntable` is an object, or a few close together, in the middle of a neutral studio; `around` are the 38 views of it
that MACRO's outside-in samples choose from: 24 on a ring, 12 on a low ring, from the top, from the bottom (the ground
is a plane that hides nothing from below). `place` has subjects on all sides of an equirectangular camera; `looking`
is the scene with a perspective camera at the same point, and `perspective_view` resamples the same view from the
panorama's pixels, real or rendered. Read next: `raycast.py`, `graph.py`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from macro.scenes.assets import appearance
from macro.scenes.assets.catalog import GROUPS, KINDS
from macro.scenes.graph import RGB, Camera, Scene, Subject, Surroundings
from macro.scenes.layout.collision import collide
from macro.scenes.layout.placement import boxes_of, can_carry, natural_scale, put_on, world_box
from macro.scenes.render.scene_compiler import MAX_SUBJECTS, camera_basis
from macro.utils.errors import UserError
from macro.utils.images import resize

Pixels = UInt8[np.ndarray, "h w 3"]
View = UInt8[np.ndarray, "s s 3"]

# Degrees in the names: 0 shows the front, angles grow as the camera goes round counter-clockwise, seen from above.
RING = tuple(f"h{angle:03d}" for angle in range(0, 360, 15))
LOW = tuple(f"low{angle:03d}" for angle in range(0, 360, 30))
POLES = ("top", "bottom")
VIEWS = (*RING, *LOW, *POLES)

# Kinds that look the same from all sides: views of one of them alone would be indistinguishable.
ROUND = frozenset({
    "drum", "stool", "lamp", "tree", "pine", "flower", "mushroom", "cake", "ice cream", "bottle", "umbrella", "crate",
    "table", "cactus",
})  # fmt: skip
FRONTED = tuple(kind for kind in KINDS if kind not in ROUND)

_FOV = 0.36  # of the cameras round an object, radians
_AWAY = 4.0  # metres from the camera to a turntable's middle
_FILLED = 0.84  # of the image's side, by the largest of the views
_STEEP = 1e-3  # radians that a pole's camera is off the vertical, to define its up direction

# Floor, its second tone, wall: rooms are studios with a floor.
ROOMS: tuple[tuple[RGB, RGB, RGB], ...] = (
    ((0.66, 0.50, 0.36), (0.58, 0.43, 0.30), (0.88, 0.84, 0.76)),
    ((0.80, 0.78, 0.74), (0.62, 0.62, 0.62), (0.74, 0.82, 0.86)),
    ((0.62, 0.40, 0.36), (0.70, 0.50, 0.44), (0.92, 0.88, 0.82)),
    ((0.52, 0.58, 0.54), (0.60, 0.66, 0.62), (0.86, 0.88, 0.80)),
)
_INDOORS = tuple(kind for group in ("toy", "furniture", "food", "household") for kind in GROUPS[group]) + (
    "dog", "cat", "rabbit", "cactus", "flower",
)  # fmt: skip
_NEAR, _FAR = (2.0, 3.0), (3.8, 5.0)  # metres from the eye of a panorama, farther where others are in the way
_TALL = frozenset({*GROUPS["building"], "tree", "pine", "bus", "truck", "train", "giraffe", "elephant"})


# ---- outside-in ----


def turntable(rng: np.random.Generator, count: int = 1) -> Scene:
    """An object in a studio, its front towards the camera: a subject, or two or three close together.

    Raises:
        UserError: a count outside 1..3.
    """
    if not 1 <= count <= 3:
        raise UserError(f"count: a turntable holds 1 to 3 subjects, not {count}")
    around_it = appearance.backdrop(rng)
    kinds = [str(rng.choice(FRONTED)), *(str(k) for k in rng.choice(list(KINDS), count - 1, replace=False))]
    subjects: list[Subject] = []
    for n, (kind, palette) in enumerate(zip(kinds, appearance.palettes(rng, count, around_it), strict=True)):
        yaw = 0.0 if n == 0 else float(rng.uniform(-1.0, 1.0))
        subject = _subject(rng, kind, palette, natural_scale(kind), yaw, n + 1)
        subjects.append(_beside(rng, subject, subjects))
    camera = Camera("perspective", (0.0, 1.0, -_AWAY), (0.0, 0.0, 0.0), _FOV)
    scene = Scene(tuple(subjects), camera, appearance.light(rng), around_it, int(rng.integers(2**31)))
    size = _AWAY / _distance(subjects)
    scaled = tuple(
        replace(s, scale=s.scale * size, height=s.height * size, position=(s.position[0] * size, s.position[1] * size))
        for s in subjects
    )
    return around(replace(scene, subjects=scaled), float(rng.uniform(5.0, 30.0)))["h000"]


def around(scene: Scene, elevation: float, low: float = 2.0) -> dict[str, Scene]:
    """The scene from all `VIEWS`, with these elevations of the ring and the low ring, both in degrees.

    All cameras look at the middle of the subjects, from the distance at which all are fully in view.
    """
    middle, away = _middle(scene.subjects), _distance(scene.subjects)

    def seen_from(angle: float, rise: float) -> Scene:
        return replace(scene, camera=_towards(middle, away, angle, rise))

    rings = {name: seen_from(np.deg2rad(int(name[1:])), np.deg2rad(elevation)) for name in RING}
    lows = {name: seen_from(np.deg2rad(int(name[3:])), np.deg2rad(low)) for name in LOW}
    steep = np.pi / 2 - _STEEP
    return rings | lows | {"top": seen_from(0.0, steep), "bottom": seen_from(0.0, -steep)}


def _middle(subjects: Sequence[Subject]) -> np.ndarray:
    """[3]: middle of a box around them all."""
    boxes = np.stack([world_box(subject) for subject in subjects])
    return (boxes[:, 0].min(0) + boxes[:, 1].max(0)) / 2


def _distance(subjects: Sequence[Subject]) -> float:
    """The cameras' distance from the middle at which the subjects fill `_FILLED` of the fullest image."""
    middle, away = _middle(subjects), 100.0
    for _ in range(3):  # exact for a far camera; a near one sees the front larger
        angles = [(angle, 0.3) for angle in np.deg2rad(np.arange(0, 360, 15))] + [(0.0, np.pi / 2 - _STEEP)]
        cameras = [_towards(middle, away, angle, rise) for angle, rise in angles]
        boxes = np.concatenate([boxes_of(camera, subjects) for camera in cameras])
        away *= float(np.abs(boxes - 0.5).max()) * 2 / _FILLED
    return away


def _towards(middle: np.ndarray, away: float, angle: float, rise: float) -> Camera:
    """A camera round `middle`: `angle` counter-clockwise from the front, seen from above, `rise` above the level."""
    direction = np.array([np.sin(angle) * np.cos(rise), np.sin(rise), -np.cos(angle) * np.cos(rise)])
    return Camera("perspective", _triple(middle + away * direction), _triple(middle), _FOV)


def _subject(rng: np.random.Generator, kind: str, palette, scale: float, yaw: float, number: int) -> Subject:
    texture, decal, seed = appearance.texture(rng), appearance.decal(rng), appearance.seed(rng)
    return Subject(kind, palette, texture, decal, scale, (0.0, 0.0), 0.0, yaw, float(rng.random()), number, seed)


def _beside(rng: np.random.Generator, subject: Subject, others: list[Subject]) -> Subject:
    """Places it on a support's free top where there is one, else on the ground, touching no other subject."""
    for other in others:
        if can_carry(other.kind, subject.kind) and all(o.height == 0 for o in others):
            return put_on(subject, other, rng)
    if not others:
        return subject
    angle = rng.uniform(0, 2 * np.pi)
    for away in np.arange(0.3, 4.0, 0.05):
        placed = replace(subject, position=(float(away * np.sin(angle)), float(away * np.cos(angle))))
        if not any(_touch(world_box(placed), world_box(other)) for other in others):
            return placed
    raise ValueError("a subject wider than four metres does not stand beside another")


def _touch(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two boxes are nearer than five centimetres on the ground."""
    gap = np.maximum(first[0] - second[1], second[0] - first[1])[[0, 2]]
    return bool((gap < 0.05).all())


def _triple(point: np.ndarray) -> tuple[float, float, float]:
    return float(point[0]), float(point[1]), float(point[2])


# ---- inside-out ----


def place(rng: np.random.Generator, count: int = MAX_SUBJECTS) -> Scene:
    """A room or an open place with `count` subjects on all sides of an equirectangular camera.

    Subjects are spread evenly by angle, so that every quarter of the horizon shows some.

    Raises:
        UserError: a count outside 4..12.
    """
    if not 4 <= count <= MAX_SUBJECTS:
        raise UserError(f"count: a place has 4 to {MAX_SUBJECTS} subjects all round, not {count}")
    indoors = bool(rng.random() < 0.4)
    ground = _room(rng) if indoors else appearance.surroundings(rng)
    if ground.ground_texture == "plain":
        ground = replace(ground, ground_texture="noise")  # otherwise the view down would be empty
    kinds = rng.choice(_INDOORS if indoors else list(KINDS), count, replace=False)
    start, subjects = rng.uniform(0, 2 * np.pi), []
    for n, (kind, palette) in enumerate(zip(kinds, appearance.palettes(rng, count, ground), strict=True)):
        angle = start + 2 * np.pi * (n + rng.uniform(-0.22, 0.22)) / count
        tall = kind in _TALL
        scale, away = float(natural_scale(str(kind)) * rng.uniform(1.3, 1.5)), rng.uniform(*_FAR if tall else _NEAR)
        subject = _subject(rng, str(kind), palette, scale, float(angle + rng.uniform(-0.9, 0.9)), n + 1)
        while True:
            placed = replace(subject, position=(float(away * np.sin(angle)), float(away * np.cos(angle))))
            if not any(collide(placed, other) for other in subjects):
                break
            away += 0.2
        subjects.append(placed)
    height = float(rng.uniform(0.9, 1.4))
    camera = Camera("equirectangular", (0.0, height, 0.0), (0.0, height, 1.0), 0.0)
    return Scene(tuple(subjects), camera, appearance.light(rng), ground, int(rng.integers(2**31)))


def _room(rng: np.random.Generator) -> Surroundings:
    floor, second, wall = ROOMS[rng.integers(len(ROOMS))]
    ceiling = tuple(0.4 + 0.6 * c for c in wall)
    return Surroundings(floor, second, str(rng.choice(["stripe", "check"])), ceiling, wall, "studio")


def looking(scene: Scene, yaw: float, pitch: float, fov: float) -> Scene:
    """The scene by a perspective camera at the eye of its panorama, angles in degrees: yaw to the right of the
    panorama's middle, pitch upwards, -90..90 (straight up is replaced by a hundredth of a degree less).
    """
    if not -90 <= pitch <= 90:
        raise ValueError(f"pitch {pitch}: a camera upside down cannot be told from one that has turned round")
    forward = _axes(yaw, float(np.clip(pitch, -89.99, 89.99)))[2]
    target = np.array(scene.camera.eye) + forward @ camera_basis(scene.camera)
    return replace(scene, camera=Camera("perspective", scene.camera.eye, _triple(target), float(np.deg2rad(fov))))


def perspective_view(panorama: Pixels, yaw: float, pitch: float, fov: float, size: int) -> View:
    """The view of a perspective camera in an equirectangular panorama, bilinearly resampled.

    Args:
        panorama: uint8[h, w, 3], w = 2 h; its middle column looks along yaw 0.
        yaw, pitch: degrees to the right and upwards; beyond 90 the camera passes the zenith, upside down.
        fov: degrees, both ways.
        size: side of the image, pixels.

    Raises:
        UserError: a panorama that is not twice as wide as high, or a field of view outside 0..180.
    """
    height, width = panorama.shape[:2]
    if width != 2 * height:
        raise UserError(f"panorama: {width} x {height} pixels, but a whole sphere is twice as wide as high")
    if not 0 < fov < 180:
        raise UserError(f"fov: {fov} degrees, but a view has more than 0 and less than 180")
    tangent = np.tan(np.deg2rad(fov) / 2)
    needed = np.pi * size / tangent  # columns of a panorama as fine as the view's middle
    if width >= 2 * needed:  # far finer than the view: sampling it sparsely would alias
        height, width = int(np.ceil(needed / 2)), 2 * int(np.ceil(needed / 2))
        panorama = resize(panorama, (height, width))
    steps = ((np.arange(size) + 0.5) / size * 2 - 1) * tangent
    x, y = np.meshgrid(steps, -steps)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ _axes(yaw, pitch)
    longitude = np.arctan2(rays[..., 0], rays[..., 2])
    latitude = np.arctan2(rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
    columns = (longitude / np.pi + 1) * width / 2 - 0.5
    rows = (0.5 - latitude / np.pi) * height - 0.5
    return _bilinear(panorama, rows, columns)


def _axes(yaw: float, pitch: float) -> np.ndarray:
    """[3, 3]: rows right, up, forward of a camera, in the frame of the panorama's middle."""
    yaw, pitch = np.deg2rad(yaw), np.deg2rad(pitch)
    level = np.array([np.sin(yaw), 0.0, np.cos(yaw)])
    upwards = np.array([0.0, 1.0, 0.0])
    return np.stack([
        np.array([np.cos(yaw), 0.0, -np.sin(yaw)]),
        np.cos(pitch) * upwards - np.sin(pitch) * level,
        np.sin(pitch) * upwards + np.cos(pitch) * level,
    ])  # fmt: skip


def _bilinear(panorama: Pixels, rows: np.ndarray, columns: np.ndarray) -> View:
    """Bilinear interpolation; columns wrap around, the outermost rows extend to the poles."""
    height, width = panorama.shape[:2]
    rows = np.clip(rows, 0, height - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    bottom, left, right = np.minimum(top + 1, height - 1), left % width, (left + 1) % width
    upper = panorama[top, left] * (1 - across) + panorama[top, right] * across
    lower = panorama[bottom, left] * (1 - across) + panorama[bottom, right] * across
    return np.round(upper * (1 - down) + lower * down).astype(np.uint8)
