"""Sampling of scenes: `sample_scene`, and scenes derived from one.

Everything is a pure function of the random generator: the same seed gives the same scene.
Read next: `arrangement.py` (where subjects stand), `../assets/appearance.py` (colours, textures, light).
"""

from dataclasses import replace

import numpy as np

from macro.scenes.assets import appearance
from macro.scenes.assets.catalog import KINDS, SUPPORTS
from macro.scenes.graph import Camera, Scene, Subject, Surroundings
from macro.scenes.layout.arrangement import arranged
from macro.scenes.layout.collision import collide
from macro.scenes.layout.placement import boxes_of, can_carry, projected_box, stands_on
from macro.scenes.render.scene_compiler import MAX_SUBJECTS
from macro.utils.errors import UserError

_CARRIES = 0.75  # of the supports, where somebody has room on them


def yaw_of(rng: np.random.Generator) -> float:
    """A yaw, mostly a three-quarter view, which shows the outline and the face."""
    return float(rng.choice([-1.0, 1.0]) * rng.uniform(0.35, 1.15))


def _kinds_of(rng: np.random.Generator, count: int, kinds: tuple[str, ...], twins: float) -> list[str]:
    """Kinds for `count` subjects; sometimes two of a kind, distinguished by colour."""
    chosen = [str(k) for k in rng.choice(kinds, count, replace=count > len(kinds))]
    if count > 1 and rng.random() < twins:
        i, j = rng.choice(count, 2, replace=False)
        chosen[i] = chosen[j]
    return chosen


def riders_of(rng: np.random.Generator, kinds: list[str]) -> dict[int, int]:
    """{rider: support} as indices into `kinds`: most supports carry another subject that finds room on them."""
    riders: dict[int, int] = {}
    for support, kind in enumerate(kinds):
        if kind in SUPPORTS and rng.random() < _CARRIES:
            free = [i for i, other in enumerate(kinds) if i not in riders and can_carry(kind, other)]
            if free:
                riders[free[int(rng.integers(len(free)))]] = support
    return riders


def sample_scene(
    rng: np.random.Generator, count: int, kinds: tuple[str, ...] | None = None, twins: float = 0.25
) -> Scene:
    """Draws a scene.

    Args:
      rng: all randomness; the same state gives the same scene.
      count: number of subjects, 1..12.
      kinds: kinds to choose from; all by default.
      twins: probability that two subjects are of one kind.

    Returns:
      A scene whose subjects are numbered 1..count in random order, all of them visible.

    Raises:
      UserError: for a count outside 1..12 or an unknown kind.
    """
    if not 1 <= count <= MAX_SUBJECTS:
        raise UserError(f"count: a scene has 1 to {MAX_SUBJECTS} subjects, not {count}")
    for kind in kinds or ():
        if kind not in KINDS:
            raise UserError(f"kinds: unknown kind {kind!r}; one of {', '.join(KINDS)}")
    around, names = appearance.surroundings(rng), _kinds_of(rng, count, tuple(kinds or KINDS), twins)
    if count > 1 and kinds is None and not set(names) & set(SUPPORTS) and rng.random() < 0.3:
        names[int(rng.integers(count))] = str(rng.choice(list(SUPPORTS)))
    riders = riders_of(rng, names)
    subjects = [
        Subject(
            kind,
            palette,
            appearance.texture(rng),
            appearance.decal(rng),
            1.0,
            (0.0, 0.0),
            0.0,
            yaw_of(rng),
            float(rng.random()),
            number + 1,
            appearance.seed(rng),
        )
        for number, (kind, palette) in enumerate(zip(names, appearance.palettes(rng, count, around), strict=True))
    ]
    return arrange(rng, subjects, around, riders)


def arrange(rng: np.random.Generator, subjects: list[Subject], around: Surroundings, riders: dict[int, int]) -> Scene:
    """A scene of these subjects at random positions, in the sizes of their kinds, none inside another.

    Args:
      riders: {rider: support}, indices into `subjects`, see `riders_of`.

    Returns:
      A scene with the given subjects, changed only in position, height and scale.
    """
    camera, placed = arranged(rng, subjects, riders)
    return Scene(tuple(placed), camera, appearance.light(rng), around, int(rng.integers(2**31)))


def decimate(scene: Scene, keep: int) -> Scene:
    """The scene with only its `keep` largest subjects (in the image), renumbered, positions unchanged.

    A subject that carries another stays as long as that one does.
    """
    subjects = list(scene.subjects)
    while len(subjects) > max(keep, 1):
        loose = [s for s in subjects if not any(stands_on(other, s) for other in subjects)]
        boxes = boxes_of(scene.camera, loose)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        subjects.remove(loose[int(areas.argmin())])
    placed = tuple(replace(s, number=n + 1) for n, s in enumerate(subjects))
    return replace(scene, subjects=placed)


def reference_scene(scene: Scene, index: int, rng: np.random.Generator) -> Scene:
    """`scene.subjects[index]` alone before a neutral backdrop, in another view, pose and light."""
    subject = scene.subjects[index]
    yaw = subject.yaw
    while abs(yaw - subject.yaw) < 0.45:
        yaw = yaw_of(rng)
    pitch, fov, distance = rng.uniform(0.12, 0.5), 0.33, 4.0
    eye = (0.0, float(distance * np.sin(pitch)), float(-distance * np.cos(pitch)))
    alone = replace(subject, position=(0.0, 0.0), height=0.0, scale=1.0, yaw=yaw, pose=float(rng.random()))
    camera = Camera("perspective", eye, (0.0, 0.0, 0.0), fov)
    for _ in range(3):
        u0, v0, u1, v1 = projected_box(camera, alone)
        alone = replace(alone, scale=alone.scale * 0.8 / max(u1 - u0, v1 - v0))
        middle = 0.5 * alone.scale * (v0 + v1 - 1.0)
        camera = replace(camera, target=(0.0, camera.target[1] - middle * distance * fov / alone.scale, 0.0))
    return Scene((alone,), camera, appearance.light(rng), appearance.backdrop(rng), int(rng.integers(2**31)))


def jitter(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same scene with resampled nuisance factors: light, poses where there is room, the seed of ground and sky."""
    subjects = list(scene.subjects)
    for n, subject in enumerate(subjects):
        moved = replace(subject, pose=float(rng.random()))
        if not any(collide(moved, other) for i, other in enumerate(subjects) if i != n):
            subjects[n] = moved
    return replace(scene, subjects=tuple(subjects), light=appearance.light(rng), seed=int(rng.integers(2**31)))
