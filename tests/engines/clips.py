"""Clips of two frames for tests: a scene, and the same scene after some of its subjects have done something.

`inset_stages` are the procedural provider's, as far as INSET asks them.
"""

from dataclasses import fields, replace

import numpy as np

from macro.engines.procedural import frames as between
from macro.engines.procedural import write
from macro.engines.procedural.draw import drawing
from macro.engines.procedural.look import Looking
from macro.engines.procedural.merge import merge
from macro.engines.procedural.noise import Noise
from macro.engines.procedural.photo import photo
from macro.engines.sources import Clip, Picture, SourceFault
from macro.engines.stages import Stages
from macro.scenes import grammar
from macro.scenes.graph import Scene

SIZE = 64


def scene_of(seed: int, count: int, kinds=None) -> Scene:
    return grammar.sample_scene(np.random.default_rng([seed, count]), count, kinds, twins=0.0)


def doing(scene: Scene, place: int, **changes) -> Scene:
    """The scene with other fields of one subject."""
    subjects = list(scene.subjects)
    subjects[place] = replace(subjects[place], **changes)
    return replace(scene, subjects=tuple(subjects), relations=())


def frames(*scenes: Scene) -> list[Picture]:
    return drawing(scenes, [SIZE] * len(scenes), 1)


class Material:
    """Photos, and clips in which most subjects turn; every fifth clip is broken, every seventh stands still."""

    def photo(self, seed, index):
        return photo(seed, index, SIZE, 1)

    def clip(self, seed, index):
        if index % 5 == 4:
            raise SourceFault(f"clip {index} is broken")
        scene = scene_of(index, 3)
        moved = scene
        if index % 7:
            for place in range(1, 3):
                moved = doing(moved, place, yaw=scene.subjects[place].yaw + 1.5)
        return Clip(tuple(frames(scene, moved, moved)), (0.0, 1.0, 4.0))

    def story(self, seed, index):
        raise AssertionError("INSET needs no stories")

    ring = panorama = pooled = story


def inset_stages(noise: Noise | None = None) -> Stages:
    def unasked(*args):
        raise AssertionError("INSET does not ask this")

    looking, writing = Looking(noise or Noise()), write.Writing(noise or Noise())
    others = {field.name: unasked for field in fields(Stages)}
    asked = {
        "sources": Material(), "categories": (), "caption": write.caption, "describe": write.describe,
        "tag": looking.tag, "detect": looking.detect, "segment": looking.segment, "merge": merge,
        "think": writing.think, "match": between.match, "stillness": between.stillness,
        "changed": between.changed, "narrate": between.narrate,
    }  # fmt: skip
    return Stages(**{**others, **asked})
