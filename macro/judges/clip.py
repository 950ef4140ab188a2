"""CLIP: how well an image fits a text, or another image; cosines, -1..1.

    clip = Clip()
    clip.text_similarity([pixels], ["a red dog"])                  CLIP-T
    clip.image_similarity([drawn], [reference])                  CLIP-I

MUSIC compares with ViT-L/14 whether a masked crop or a whole box shows a category (arXiv 2604.07422), and ranks
candidates with it. Shared by the data engines, search and benchmarks. Read next: `dino.py`, `model_loading.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32

from macro.judges.model_loading import PretrainedModel, cosines, pixel_values
from macro.utils.images import Pixels, resize_and_crop


@dataclass(frozen=True)
class Clip(PretrainedModel):
    """A CLIP model; attributes as of `PretrainedModel`.

    float32 by default, because compared similarities differ in the third decimal; a large model may use bfloat16.
    """

    name: str = "openai/clip-vit-large-patch14"
    batch: int = 32

    TITLE: ClassVar[str] = "CLIP"
    CLASS: ClassVar[str] = "CLIPModel"
    KINDS: ClassVar[tuple[str, ...]] = ("clip",)
    PROCESSOR: ClassVar[bool] = True

    def text_similarity(self, images: Sequence[Pixels], texts: Sequence[str]) -> Float32[np.ndarray, "n"]:
        """Cosine of image i and text i (CLIP-T). Texts are cut at CLIP's 77 tokens."""
        return cosines(self.images(images), self.texts(texts))

    def image_similarity(self, first: Sequence[Pixels], second: Sequence[Pixels]) -> Float32[np.ndarray, "n"]:
        """Cosine of first[i] and second[i] (CLIP-I)."""
        return cosines(self.images(first), self.images(second))

    def images(self, images: Sequence[Pixels]) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of images of any size, which are resized by the shorter side and centre-cropped."""
        model, processor = self.load()
        side, scaling = model.config.vision_config.image_size, processor.image_processor

        def encode(part: Sequence[Pixels]):
            cropped = [resize_and_crop(pixels, (side, side)) for pixels in part]
            values = pixel_values(cropped, model, scaling.image_mean, scaling.image_std)
            return model.visual_projection(model.vision_model(pixel_values=values).pooler_output)

        return self._unit_vectors(encode, images, model.config.projection_dim)

    def texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of texts."""
        model, processor = self.load()
        longest = model.config.text_config.max_position_embeddings

        def encode(part: Sequence[str]):
            tokens = processor.tokenizer(
                list(part), padding=True, truncation=True, max_length=longest, return_tensors="pt"
            ).to(model.device)
            pooled = model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
            return model.text_projection(pooled)

        return self._unit_vectors(encode, texts, model.config.projection_dim)
