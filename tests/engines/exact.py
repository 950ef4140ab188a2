"""Small scenes and their pictures, for tests of the procedural provider and the engines on it."""

import numpy as np

from macro.engines import procedural
from macro.engines.known import labels, truths
from macro.engines.procedural.draw import drawing
from macro.engines.procedural.look import regions_of
from macro.engines.sources import Picture
from macro.engines.stages import Region, Stages
from macro.scenes.layout import layout_sampler

SIDE = 64


def stages(**noise: float) -> Stages:
    """The procedural stages at one ray a pixel, with these error rates."""
    return procedural.stages(procedural.Options(size=SIDE, rays=1, noise=procedural.Noise(**noise)))


def pictures(count: int, subjects: int = 4, seed: int = 0) -> list[Picture]:
    """Different scenes of so many subjects."""
    scenes = [layout_sampler.sample_scene(np.random.default_rng([seed, i]), subjects) for i in range(count)]
    return drawing(scenes, [SIDE] * count, rays=1)


def regions(shown: list[Picture]) -> list[list[Region]]:
    """The exact regions of every picture."""
    return [
        regions_of(truth, labels(picture.scene)) for picture, truth in zip(shown, truths(shown), strict=True)
    ]
