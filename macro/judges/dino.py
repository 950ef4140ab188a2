"""DINO and DINOv2: whether two images show the same thing; cosine of their CLS features, -1..1.

DreamBench's convention (as UNO and MUSIC report it): ViT-S/16, the shorter side to 256, the middle 224 x 224. The data
engines take DINOv2 (MACRO's runs of similar key frames, arXiv 2603.25319). Read next: `clip.py`, `model_loading.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from macro.judges.model_loading import check_kind, device_of, format_of, loading, once
from macro.utils.errors import UserError
from macro.utils.images import Pixels, resize_and_crop

DREAMBENCH = "facebook/dino-vits16"

_RESIZED, _CROP = 256, 224
_KINDS = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")
# Of ImageNet, which every DINO was trained with.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Dino:
    """A DINO or DINOv2 model, loaded when it is first asked.

    Attributes:
        name: of the hub, or a folder; `DREAMBENCH` is the one that benchmarks are reported with.
        device: None is a GPU where there is one.
        dtype: float32, as for CLIP.
        batch: images that go through the model at a time; the answers do not depend on it.
    """

    name: str = "facebook/dinov2-base"
    device: str | None = None
    dtype: str = "float32"
    batch: int = 32

    def __post_init__(self):
        if self.batch < 1:
            raise UserError(f"DINO: batch is {self.batch}; use at least 1")

    def similarity(self, first: Sequence[Pixels], second: Sequence[Pixels]) -> Float32[np.ndarray, "n"]:
        """Cosine of first[i] and second[i]."""
        return np.einsum("nd,nd->n", self.features(first), self.features(second))

    def features(self, images: Sequence[Pixels]) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of images of any sizes."""
        model = _load(self.name, self.device, self.dtype)
        import torch

        parts = [np.zeros((0, model.config.hidden_size), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(images), self.batch):
                values = np.stack([_seen(image) for image in images[start : start + self.batch]])
                values = torch.from_numpy(values).to(model.device, model.dtype)
                features = model(pixel_values=values).last_hidden_state[:, 0].float()
                parts.append(torch.nn.functional.normalize(features, dim=-1).cpu().numpy())
        return np.concatenate(parts)


def _seen(pixels: Pixels) -> Float32[np.ndarray, "3 224 224"]:
    """What the model sees of an image."""
    edge = (_RESIZED - _CROP) // 2
    middle = resize_and_crop(pixels, (_RESIZED, _RESIZED))[edge : edge + _CROP, edge : edge + _CROP]
    return np.ascontiguousarray(((middle.astype(np.float32) / 255 - _MEAN) / _DEVIATION).transpose(2, 0, 1))


@once
def _load(name: str, device: str | None, dtype: str) -> Any:
    with loading("DINO", name):
        from transformers import AutoModel

        on, numbers = device_of(device), format_of(dtype)
        check_kind(name, _KINDS)
        return AutoModel.from_pretrained(name).to(device=on, dtype=numbers).eval()
