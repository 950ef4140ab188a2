"""Small scenes and their images, for tests of the procedural provider and the engines on it."""

import numpy as np

from macro.engines import procedural
from macro.engines.ground_truth import ground_truths, labels
from macro.engines.material.types import EngineImage
from macro.engines.procedural.generators import drawing
from macro.engines.procedural.vision import regions_of
from macro.engines.provider import Provider, Region
from macro.scenes.layout import layout_sampler

SIDE = 64


def provider(**noise: float) -> Provider:
    """The procedural stages at one ray a pixel, with these error rates."""
    return procedural.provider(procedural.Options(size=SIDE, rays=1, noise=procedural.Noise(**noise)))


def images(count: int, subjects: int = 4, seed: int = 0) -> list[EngineImage]:
    """Different scenes of so many subjects."""
    scenes = [layout_sampler.sample_scene(np.random.default_rng([seed, i]), subjects) for i in range(count)]
    return drawing(scenes, [SIDE] * count, rays=1)


def regions(shown: list[EngineImage]) -> list[list[Region]]:
    """The exact regions of every image."""
    return [regions_of(truth, labels(truth)) for truth in ground_truths(shown)]
