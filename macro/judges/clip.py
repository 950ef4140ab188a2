"""CLIP: how well an image fits a text, or another image; cosines, -1..1.

    clip = Clip()
    clip.text_similarity([pixels], ["a red dog"])                  CLIP-T
    clip.image_similarity([drawn], [reference])                  CLIP-I

MUSIC compares with ViT-L/14 whether a masked crop or a whole box shows a category (arXiv 2604.07422), and ranks
candidates with it. Shared by the data engines, search and benchmarks. Read next: `dino.py`, `model_loading.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from macro.judges.model_loading import check_kind, device_of, format_of, loading, once
from macro.utils.errors import UserError
from macro.utils.images import Pixels, resize_and_crop


@dataclass(frozen=True)
class Clip:
    """A CLIP model, loaded when it is first asked.

    Attributes:
        name: of the hub, or a folder.
        device: None is a GPU where there is one.
        dtype: float32 everywhere, because what is compared differs in the third decimal; a large model may be given
            bfloat16.
        batch: images or texts that go through the model at a time; the answers do not depend on it.
    """

    name: str = "openai/clip-vit-large-patch14"
    device: str | None = None
    dtype: str = "float32"
    batch: int = 32

    def __post_init__(self):
        if self.batch < 1:
            raise UserError(f"CLIP: batch is {self.batch}; use at least 1")

    def text_similarity(self, images: Sequence[Pixels], texts: Sequence[str]) -> Float32[np.ndarray, "n"]:
        """Cosine of image i and text i (CLIP-T). Texts are cut at CLIP's 77 tokens."""
        return _cosines(self.images(images), self.texts(texts))

    def image_similarity(self, first: Sequence[Pixels], second: Sequence[Pixels]) -> Float32[np.ndarray, "n"]:
        """Cosine of first[i] and second[i] (CLIP-I)."""
        return _cosines(self.images(first), self.images(second))

    def images(self, images: Sequence[Pixels]) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of images of any sizes: the shorter side is fitted, and the middle seen."""
        model, processor = _load(self.name, self.device, self.dtype)
        import torch

        side = model.config.vision_config.image_size
        mean, deviation = (
            np.array(getattr(processor.image_processor, name), np.float32) for name in ("image_mean", "image_std")
        )

        def encode(part: Sequence[Pixels]):
            cropped = np.stack([resize_and_crop(pixels, (side, side)) for pixels in part])
            values = (cropped.astype(np.float32) / 255 - mean) / deviation
            values = torch.from_numpy(values.transpose(0, 3, 1, 2).copy()).to(model.device, model.dtype)
            return model.visual_projection(model.vision_model(pixel_values=values).pooler_output)

        return self._units(encode, images, model.config.projection_dim)

    def texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of texts."""
        model, processor = _load(self.name, self.device, self.dtype)
        longest = model.config.text_config.max_position_embeddings

        def encode(part: Sequence[str]):
            tokens = processor.tokenizer(
                list(part), padding=True, truncation=True, max_length=longest, return_tensors="pt"
            ).to(model.device)
            pooled = model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
            return model.text_projection(pooled)

        return self._units(encode, texts, model.config.projection_dim)

    def _units(self, encode: Any, items: Sequence[Any], width: int) -> Float32[np.ndarray, "n d"]:
        import torch

        parts = [np.zeros((0, width), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(items), self.batch):
                features = encode(items[start : start + self.batch]).float()
                parts.append(torch.nn.functional.normalize(features, dim=-1).cpu().numpy())
        return np.concatenate(parts)


def _cosines(first: Float32[np.ndarray, "n d"], second: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n"]:
    return np.einsum("nd,nd->n", first, second)


@once
def _load(name: str, device: str | None, dtype: str) -> tuple[Any, Any]:
    with loading("CLIP", name):
        from transformers import AutoProcessor, CLIPModel

        on, numbers = device_of(device), format_of(dtype)
        check_kind(name, ("clip",))
        model = CLIPModel.from_pretrained(name).to(device=on, dtype=numbers).eval()
        return model, AutoProcessor.from_pretrained(name)
