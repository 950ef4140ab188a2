"""Rendered clips, the similarity of their frames, and what happens in them, exact because scenes track their subjects.

Two frames are as similar as their content: subjects (less if they have moved),
surroundings, and the camera's direction.
"""

import functools
from collections.abc import Sequence

import numpy as np

from macro.engines.material.types import EngineImage, Lazy, VideoClip
from macro.engines.procedural.generators import drawing
from macro.engines.procedural.vision import UNKNOWN
from macro.engines.provider import Answers, Images
from macro.scenes.animation import motion, narration
from macro.scenes.graph import Scene, Subject
from macro.scenes.layout.placement import projected_box
from macro.scenes.render.scene_compiler import camera_basis
from macro.scenes.similarity import matched, subject_similarity, surroundings_similarity

RATE = 4.0  # frames a second
_SMALL = 48  # pixels a side, enough for a shot boundary
_SUBJECTS, _AROUND, _CAMERA = 0.6, 0.25, 0.15
_ELSEWHERE = 0.3  # similarity lost by a subject that has moved far


def clip(seed: int, index: int, size: int, rays: int) -> VideoClip:
    """About 15 seconds in 13 to 16 shots; half of the clips move to another place once, for two shots."""
    rng = np.random.default_rng([seed, index, 9])
    episodes = int(rng.integers(1, 3))
    script = motion.write(rng, int(rng.integers(13, 15)) + 2 * (episodes - 1), episodes=episodes)
    scenes, seconds = motion.frames(script, RATE)
    return VideoClip(rendered_frames(scenes, size, rays), seconds, rendered_frames(scenes, _SMALL, 1))


def rendered_frames(scenes: Sequence[Scene], size: int, rays: int) -> Lazy:
    """Frames of a clip, rendered on access."""
    return Lazy(len(scenes), functools.partial(_frames, tuple(scenes), size, rays))


def _frames(scenes: Sequence[Scene], size: int, rays: int, places: Sequence[int]) -> dict[int, EngineImage]:
    return dict(zip(places, drawing([scenes[n] for n in places], [size] * len(places), rays), strict=True))


def image_similarity(first: Images, second: Images) -> Answers[float]:
    """Similarity of the content of each pair of images, 0..1."""
    return [
        UNKNOWN if one.scene is None or other.scene is None else resemblance(one.scene, other.scene)
        for one, other in zip(first, second, strict=True)
    ]


def resemblance(one: Scene, other: Scene) -> float:
    """Similarity of two scenes, 0..1; symmetric, and 1 for the same scene."""
    around = surroundings_similarity(one.surroundings, other.surroundings)
    ahead = float(camera_basis(one.camera)[2] @ camera_basis(other.camera)[2])
    alike = _SUBJECTS * _cast_likeness(in_frame(one), in_frame(other)) + _AROUND * around
    return alike + _CAMERA * (0.5 + 0.5 * min(ahead, 1.0))


def in_frame(scene: Scene) -> list[Subject]:
    """Subjects whose centre is in the image; all subjects if it is a panorama."""
    if scene.camera.kind != "perspective":
        return list(scene.subjects)
    inside = []
    for subject in scene.subjects:
        u0, v0, u1, v1 = projected_box(scene.camera, subject)
        if 0 <= (u0 + u1) / 2 <= 1 and 0 <= (v0 + v1) / 2 <= 1:
            inside.append(subject)
    return inside


def _cast_likeness(one: Sequence[Subject], other: Sequence[Subject]) -> float:
    """Share of the subjects of both images that are in both, each weighted by its similarity and nearness."""
    if not one and not other:
        return 1.0
    pairs = [(a, other[n]) for a, n in zip(one, matched(one, other), strict=True) if n is not None]
    alike = sum(subject_similarity(a, b) * (1 - _ELSEWHERE * _gone(a, b)) for a, b in pairs)
    return alike / (len(one) + len(other) - len(pairs))


def _gone(a: Subject, b: Subject) -> float:
    """How far a subject has moved: 0 at the same position, near 1 some metres away."""
    way = np.hypot(*np.subtract(a.position, b.position)) + abs(a.height - b.height)
    return float(1 - np.exp(-way))


def summarise(frames: Sequence[Images], seeds: Sequence[int]) -> Answers[str]:
    """What happens in key frames, in order, in under 50 words."""
    out: Answers[str] = []
    for images, seed in zip(frames, seeds, strict=True):
        scenes = [image.scene for image in images]
        known = scenes and None not in scenes
        out.append(narration.summarise_changes(scenes, np.random.default_rng([seed, 10])) if known else UNKNOWN)
    return out
