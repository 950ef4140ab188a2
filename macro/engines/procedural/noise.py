"""Errors that the procedural provider makes on purpose: how much engine noise hurts training is a question to study.

All rates are 0 by default: then every answer is exact. What goes wrong follows from the image and the thing asked
about, so the same question has the same wrong answer.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from macro.scenes.graph import Scene
from macro.utils.errors import check_range
from macro.utils.streams import stream


@dataclass(frozen=True)
class Noise:
    """How often each stage errs.

    Attributes:
        missed: chance that the detector does not find a thing.
        swapped: chance that it gives two things of an image each other's labels.
        boxes: deviation of a box's edges, as a share of its sides.
        masks: how far masks bleed or shrink, up to this share of the thing's width.
        verified: chance that whoever checks a box says the contrary.
        drift: chance that a redrawn subject has another main colour.
        words: chance that an instruction calls two subjects by each other's image.
        scores: deviation of a judge's scores, points of 10.
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
    """Random numbers for one question about a scene."""
    return stream(scene.seed, repr(scene.subjects), "|".join(map(str, (purpose, *details))))
