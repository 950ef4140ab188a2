"""Clips of two frames for tests: a scene, and the same scene after some of its subjects have done something."""

from dataclasses import replace

import numpy as np

from macro.engines.material.types import EngineImage, VideoClip
from macro.engines.procedural.generators import drawing
from macro.engines.procedural.material import RenderedMaterial
from macro.scenes.graph import Scene
from macro.scenes.layout import layout_sampler
from macro.utils.errors import ItemError

SIZE = 64


def scene_of(seed: int, count: int, kinds=None) -> Scene:
    return layout_sampler.sample_scene(np.random.default_rng([seed, count]), count, kinds, twins=0.0)


def doing(scene: Scene, place: int, **changes) -> Scene:
    """The scene with other fields of one subject."""
    subjects = list(scene.subjects)
    subjects[place] = replace(subjects[place], **changes)
    return replace(scene, subjects=tuple(subjects))


def frames(*scenes: Scene) -> list[EngineImage]:
    return drawing(scenes, [SIZE] * len(scenes), 1)


class ToyMaterial:
    """Photos, and clips in which most subjects turn; every fifth clip is broken, every seventh stands still."""

    def photo(self, seed, index):
        return RenderedMaterial(SIZE, 1).photo(seed, index)

    def clip(self, seed, index):
        if index % 5 == 4:
            raise ItemError(f"clip {index} is broken")
        scene = scene_of(index, 3)
        moved = scene
        if index % 7:
            for place in range(1, 3):
                moved = doing(moved, place, yaw=scene.subjects[place].yaw + 1.5)
        return VideoClip(tuple(frames(scene, moved, moved)), (0.0, 1.0, 4.0))

    def story(self, seed, index):
        raise AssertionError("INSET needs no stories")

    turntable = panorama = pooled = story
