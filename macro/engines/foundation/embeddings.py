"""CLIP and DINOv2 as stages: a region against a text (MUSIC's mask-or-box choice), an image against an image.

Read next: `macro/judges/clip.py`, `macro/judges/dino.py`, which hold the models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from macro.engines.foundation.batching import answer, crop
from macro.engines.material.types import EngineImage
from macro.engines.provider import Region
from macro.judges import clip, dino
from macro.utils.errors import ItemError
from macro.utils.images import Pixels


@dataclass(frozen=True)
class Clip:
    """`stages.Compare` by CLIP; attributes as of `macro.judges.clip.Clip`."""

    name: str = clip.Clip.name
    device: str | None = None
    dtype: str = clip.Clip.dtype
    batch: int = clip.Clip.batch

    def __call__(
        self,
        images: Sequence[EngineImage],
        regions: Sequence[Region],
        texts: Sequence[str],
        masked: Sequence[bool],
    ) -> list[float | ItemError]:
        """Cosine of each text and the crop of its region's box, all but the mask white where `masked`."""
        model = clip.Clip(self.name, self.device, self.dtype, self.batch)

        def run(items: list[tuple[Pixels, str]]) -> list[float | ItemError]:
            return [_finite(cosine) for cosine in model.text_similarity(*zip(*items, strict=True)).tolist()]

        shown = [crop(p, r, m) for p, r, m in zip(images, regions, masked, strict=True)]
        pairs = [s if isinstance(s, ItemError) else (s, text) for s, text in zip(shown, texts, strict=True)]
        return answer(run, pairs, self.batch)


@dataclass(frozen=True)
class Dino:
    """`stages.Resemble` by DINOv2; attributes as of `macro.judges.dino.Dino`."""

    name: str = dino.Dino.name
    device: str | None = None
    dtype: str = dino.Dino.dtype
    batch: int = dino.Dino.batch

    def __call__(self, first: Sequence[EngineImage], second: Sequence[EngineImage]) -> list[float | ItemError]:
        """Cosine of first[i] and second[i]."""
        model = dino.Dino(self.name, self.device, self.dtype, self.batch)

        def run(items: list[tuple[Pixels, Pixels]]) -> list[float | ItemError]:
            return [_finite(cosine) for cosine in model.similarity(*zip(*items, strict=True)).tolist()]

        return answer(run, [(a.pixels, b.pixels) for a, b in zip(first, second, strict=True)], self.batch)


def _finite(cosine: float) -> float | ItemError:
    return cosine if math.isfinite(cosine) else ItemError("the model's answer is not a number")
