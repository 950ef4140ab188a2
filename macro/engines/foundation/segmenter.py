"""SAM2 as a stage: boxes to masks. `Sam2Processor` would need torchvision for what is a few lines here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from macro.engines.foundation.batching import answer
from macro.engines.material.types import EngineImage
from macro.engines.provider import Mask, Region
from macro.judges.model_loading import PretrainedModel, pixel_values
from macro.utils.errors import ItemError
from macro.utils.images import Pixels


@dataclass(frozen=True)
class Sam2(PretrainedModel):
    """`Provider.segment` by SAM2; attributes as of `PretrainedModel`.

    `batch` counts images whose features are computed at a time; all boxes of an image go together.
    """

    name: str = "facebook/sam2.1-hiera-large"

    TITLE: ClassVar[str] = "SAM2"
    CLASS: ClassVar[str] = "Sam2Model"
    # Published weights are those of the video model, which contains this one.
    KINDS: ClassVar[tuple[str, ...]] = ("sam2", "sam2_video")

    def __call__(
        self, images: Sequence[EngineImage], regions: Sequence[Sequence[Region]]
    ) -> list[list[Mask] | ItemError]:
        """For each region of each image the mask of the object in its box, bool[h, w]; it may be empty.

        Raises:
            UserError: the model cannot be loaded.
        """

        def run(items: list[tuple[Pixels, Sequence[Region]]]) -> list[list[Mask] | ItemError]:
            return self._masks([pixels for pixels, _ in items], [asked for _, asked in items])

        asked = [(p.pixels, r) for p, r in zip(images, regions, strict=True)]
        with_boxes = iter(answer(run, [item for item in asked if item[1]], self.batch))
        return [next(with_boxes) if boxes else [] for _, boxes in asked]

    def _masks(self, images: list[Pixels], regions: list[Sequence[Region]]) -> list[list[Mask] | ItemError]:
        model, _ = self.load()
        import torch

        side = model.config.prompt_encoder_config.image_size
        values = pixel_values([_square(pixels, side) for pixels in images], model)
        with torch.inference_mode():
            levels = model.get_image_embeddings(values)
            return [
                self._decode(model, [level[i : i + 1] for level in levels], regions[i], pixels.shape[:2], side)
                for i, pixels in enumerate(images)
            ]

    def _decode(
        self, model: Any, levels: list[Any], regions: Sequence[Region], size: tuple[int, ...], side: int
    ) -> list[Mask] | ItemError:
        """The masks of one image, from its feature levels."""
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


def _square(pixels: Pixels, side: int) -> Pixels:
    """The image resized to a square, as the model expects, whatever its aspect."""
    return np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))
