"""Errors that the procedural provider makes on purpose: how much engine noise hurts training is a question to study.

All rates are 0 by default: then every answer is exact. What goes wrong follows from the image and the thing asked
about, so the same question has the same wrong answer.
"""

import dataclasses
import zlib
from dataclasses import dataclass

import numpy as np

from macro.scenes.graph import Scene
from macro.utils.errors import UserError


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
            value = getattr(self, field.name)
            limit = 10.0 if field.name == "scores" else 1.0
            if not 0 <= value <= limit:
                raise UserError(f"noise: {field.name}={value} must lie in 0..{limit:g}")


def chance(scene: Scene, purpose: str, *details: str | int) -> np.random.Generator:
    """Random numbers for one question about a scene."""
    asked = "|".join(map(str, (purpose, *details)))
    return np.random.default_rng([scene.seed, zlib.crc32(repr(scene.subjects).encode()), zlib.crc32(asked.encode())])
