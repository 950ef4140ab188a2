"""DINO and DINOv2: whether two images show the same thing; cosine of their CLS features, -1..1.

DreamBench's convention (as UNO and MUSIC report it): ViT-S/16, shorter side to 256, centre crop 224 x 224. The data
engines take DINOv2 (MACRO's runs of similar key frames, arXiv 2603.25319). Read next: `clip.py`, `model_loading.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32

from macro.judges.model_loading import PretrainedModel, cosines, pixel_values
from macro.utils.images import Pixels, resize_and_crop

DREAMBENCH = "facebook/dino-vits16"

_RESIZED, _CROP = 256, 224


@dataclass(frozen=True)
class Dino(PretrainedModel):
    """A DINO or DINOv2 model; attributes as of `PretrainedModel`.

    `DREAMBENCH` is the name of the model that benchmarks report. float32, as for CLIP.
    """

    name: str = "facebook/dinov2-base"
    batch: int = 32

    TITLE: ClassVar[str] = "DINO"
    KINDS: ClassVar[tuple[str, ...]] = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")

    def similarity(self, first: Sequence[Pixels], second: Sequence[Pixels]) -> Float32[np.ndarray, "n"]:
        """Cosine of first[i] and second[i]."""
        return cosines(self.features(first), self.features(second))

    def features(self, images: Sequence[Pixels]) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of images of any sizes."""
        model, _ = self.load()

        def encode(part: Sequence[Pixels]):
            values = pixel_values([_resized_middle(image) for image in part], model)
            return model(pixel_values=values).last_hidden_state[:, 0]

        return self._unit_vectors(encode, images, model.config.hidden_size)


def _resized_middle(pixels: Pixels) -> Pixels:
    """The model's input, resized and centre-cropped, uint8[224, 224, 3]."""
    edge = (_RESIZED - _CROP) // 2
    return resize_and_crop(pixels, (_RESIZED, _RESIZED))[edge : edge + _CROP, edge : edge + _CROP]
