"""Deliberate errors of the procedural provider, to study how much engine noise hurts training.

All rates are 0 by default: then every answer is exact. An error follows from the image and the item asked
about, so the same input always gets the same wrong answer.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from macro.scenes.graph import Scene
from macro.utils.errors import check_range
from macro.utils.streams import stream


@dataclass(frozen=True)
class Noise:
    """Error rates of the stages.

    Attributes:
        missed: probability that the detector misses an object.
        swapped: probability that it swaps the labels of two objects of an image.
        boxes: standard deviation of a box's edges, as a share of its sides.
        masks: growth or shrinkage of masks, up to this share of the object's width.
        verified: probability that the check of a box gives the opposite answer.
        drift: probability that a redrawn subject has another main colour.
        words: probability that an instruction swaps the images of two subjects.
        scores: standard deviation of a judge's scores, points of 10.
    """

    missed: float = 0.0
    swapped: float = 0.0
    boxes: float = 0.0
    masks: float = 0.0
    verified: float = 0.0
    drift: float = 0.0
    words: float = 0.0
    scores: float = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_range("noise", self, 0, 10 if field.name == "scores" else 1, field.name)


def chance(scene: Scene, purpose: str, *details: str | int) -> np.random.Generator:
    """Random numbers for one stage and item of a scene."""
    return stream(scene.seed, repr(scene.subjects), "|".join(map(str, (purpose, *details))))
