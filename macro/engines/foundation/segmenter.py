"""SAM2 as a stage: boxes to masks. `Sam2Processor` would want torchvision for what is a few lines here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from macro.engines.foundation.batching import answer
from macro.engines.material.types import EngineImage
from macro.engines.provider import Mask, Region
from macro.judges.model_loading import check_kind, device_of, format_of, loading, once
from macro.utils.errors import ItemError, UserError
from macro.utils.images import Pixels

# Of ImageNet, which SAM2 was trained with.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Sam2:
    """`stages.Segment` by SAM2.

    Attributes:
        name: of the hub, or a folder.
        device: None is a GPU where there is one.
        dtype: "float32", "bfloat16" or "float16".
        batch: images whose features are taken at a time; all boxes of an image go together.
    """

    name: str = "facebook/sam2.1-hiera-large"
    device: str | None = None
    dtype: str = "float32"
    batch: int = 4

    def __post_init__(self):
        if self.batch < 1:
            raise UserError(f"SAM2: batch is {self.batch}; use at least 1")

    def __call__(
        self, images: Sequence[EngineImage], regions: Sequence[Sequence[Region]]
    ) -> list[list[Mask] | ItemError]:
        """For each region of each image the mask of what its box is around, bool[h, w]; it may be empty.

        Raises:
            UserError: the model cannot be loaded.
        """

        def run(items: list[tuple[Pixels, Sequence[Region]]]) -> list[list[Mask] | ItemError]:
            return self._masks([pixels for pixels, _ in items], [asked for _, asked in items])

        asked = [(p.pixels, r) for p, r in zip(images, regions, strict=True)]
        with_boxes = iter(answer(run, [item for item in asked if item[1]], self.batch))
        return [next(with_boxes) if boxes else [] for _, boxes in asked]

    def _masks(self, images: list[Pixels], regions: list[Sequence[Region]]) -> list[list[Mask] | ItemError]:
        model = _load(self.name, self.device, self.dtype)
        import torch

        side = model.config.prompt_encoder_config.image_size
        seen = torch.from_numpy(np.stack([_seen(pixels, side) for pixels in images]))
        with torch.inference_mode():
            levels = model.get_image_embeddings(seen.to(model.device, model.dtype))
            return [
                self._decode(model, [level[i : i + 1] for level in levels], regions[i], pixels.shape[:2], side)
                for i, pixels in enumerate(images)
            ]

    def _decode(
        self, model: Any, levels: list[Any], regions: Sequence[Region], size: tuple[int, ...], side: int
    ) -> list[Mask] | ItemError:
        """The masks of one image, from the levels of its features."""
        import torch

        boxes = torch.tensor([[[edge * side for edge in region.box] for region in regions]], dtype=model.dtype)
        found = model(
            image_embeddings=levels, input_boxes=boxes.to(model.device), multimask_output=False
        ).pred_masks.float()
        if not torch.isfinite(found).all():
            return ItemError("SAM2's masks are not numbers")
        # [1, boxes, 1, height, width] at a quarter of the model's side -> the image's own size.
        whole = torch.nn.functional.interpolate(found[0], tuple(size), mode="bilinear", align_corners=False)
        return [np.ascontiguousarray(mask) for mask in (whole[:, 0] > 0).cpu().numpy()]


def _seen(pixels: Pixels, side: int) -> Float32[np.ndarray, "3 _ _"]:
    """The image as the model sees it: a square, whatever that does to the aspect."""
    square = np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR), np.float32)
    return np.ascontiguousarray(((square / 255 - _MEAN) / _DEVIATION).transpose(2, 0, 1))


@once
def _load(name: str, device: str | None, dtype: str) -> Any:
    with loading("SAM2", name):
        from transformers import Sam2Model

        on, numbers = device_of(device), format_of(dtype)
        # What is published are weights of the video model, which has this one in it.
        check_kind(name, ("sam2", "sam2_video"))
        return Sam2Model.from_pretrained(name).to(device=on, dtype=numbers).eval()
