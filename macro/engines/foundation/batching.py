"""What the vision stages share: batches in which a bad item does not fail the others, and crops of regions.

Read next: `detector.py`, `segmenter.py`, `embeddings.py`, `generators.py`.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from macro.engines.material.types import EngineImage
from macro.engines.provider import Box, Region
from macro.judges.model_loading import first_line
from macro.utils.errors import ItemError
from macro.utils.images import Pixels

_BLANK = 255  # white, as `macro.utils.images` puts behind transparent images


def answer(
    run: Callable[[list[Any]], list[Any]],
    items: Sequence[Any],
    batch: int,
    key: Callable[[Any], Hashable] = lambda item: None,
) -> list[Any]:
    """`run` over items, at most `batch` at a time, the answers in the items' order.

    Only items of equal `key` (sizes, say) share a batch. An `ItemError` among the items is its own answer. A batch that
    the model fails on is run again item by item, and an item that still fails becomes an `ItemError`: one image that is
    too large for memory must not fail the others. Other errors (of type, of attribute) are bugs and propagate.

    Args:
        run: items -> as many answers, in order.
        batch: at least 1.
    """
    answers: list[Any] = list(items)
    groups: dict[Hashable, list[int]] = {}
    for i, item in enumerate(items):
        if not isinstance(item, ItemError):
            groups.setdefault(key(item), []).append(i)
    for group in groups.values():
        for start in range(0, len(group), batch):
            places = group[start : start + batch]
            for i, found in zip(places, _attempt(run, [items[i] for i in places]), strict=True):
                answers[i] = found
    return answers


def _attempt(run: Callable[[list[Any]], list[Any]], items: list[Any]) -> list[Any]:
    try:
        return run(items)
    # What models raise on inputs that they cannot take; out of memory is a RuntimeError too.
    except (ValueError, RuntimeError) as error:
        if len(items) == 1:
            return [ItemError(f"{type(error).__name__}: {first_line(error)}")]
    return [found for item in items for found in _attempt(run, [item])]


def crop(image: EngineImage, region: Region, masked: bool) -> Pixels | ItemError:
    """The pixels of a region's bounding box, rounded outwards; with `masked`, pixels outside its mask are white."""
    height, width = image.pixels.shape[:2]
    x0, y0, x1, y1 = _pixel_box(region.box, height, width)
    if x1 <= x0 or y1 <= y0 or region.area == 0:
        return ItemError(f"the box of {region.label!r} is empty or outside of the image")
    pixels = image.pixels[y0:y1, x0:x1]
    if not masked:
        return np.ascontiguousarray(pixels)
    if region.mask is None:
        return ItemError(f"{region.label!r} has no mask")
    if region.mask.shape != (height, width):
        return ItemError(f"the mask of {region.label!r} is of another size than its image")
    return np.where(region.mask[y0:y1, x0:x1, None], pixels, np.uint8(_BLANK))


def squared(pixels: Pixels) -> Pixels:
    """The image centred in a white square."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), _BLANK, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _pixel_box(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    edges = np.clip(np.array(box, np.float64), 0, 1) * (width, height, width, height)
    x0, y0 = np.floor(edges[:2] + 1e-6)
    x1, y1 = np.ceil(edges[2:] - 1e-6)
    return int(x0), int(y0), int(x1), int(y1)
