"""CLIP and DINOv2 as stages: region-text similarity (MUSIC's mask-or-box choice) and image-image similarity.

Read next: `macro/judges/clip.py`, `macro/judges/dino.py`, which hold the models.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from macro.engines.foundation.batching import answer, crop
from macro.engines.material.types import EngineImage
from macro.engines.provider import Region
from macro.judges import clip, dino
from macro.utils.errors import ItemError


@dataclass(frozen=True)
class Clip(clip.Clip):
    """`Provider.text_similarity` by CLIP."""

    def __call__(
        self,
        images: Sequence[EngineImage],
        regions: Sequence[Region],
        texts: Sequence[str],
        masked: Sequence[bool],
    ) -> list[float | ItemError]:
        """Cosine of each text and the crop of its region's box; if `masked`, pixels outside the mask are white."""
        shown = [crop(p, r, m) for p, r, m in zip(images, regions, masked, strict=True)]
        pairs = [s if isinstance(s, ItemError) else (s, text) for s, text in zip(shown, texts, strict=True)]
        return answer(partial(_finite, self.text_similarity), pairs, self.batch)


@dataclass(frozen=True)
class Dino(dino.Dino):
    """`Provider.image_similarity` by DINOv2."""

    def __call__(self, first: Sequence[EngineImage], second: Sequence[EngineImage]) -> list[float | ItemError]:
        """Cosine of first[i] and second[i]."""
        pairs = [(a.pixels, b.pixels) for a, b in zip(first, second, strict=True)]
        return answer(partial(_finite, self.similarity), pairs, self.batch)


def _finite(similarity: Callable[..., np.ndarray], pairs: list[tuple[Any, Any]]) -> list[float | ItemError]:
    found = similarity(*zip(*pairs, strict=True)).tolist()
    return [cosine if math.isfinite(cosine) else ItemError("the model's answer is not a number") for cosine in found]
