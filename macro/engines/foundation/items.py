"""What the vision stages share: batches in which one bad item spoils nothing, and pictures cut to a region.

Read next: `detecting.py`, `segmenting.py`, `resembling.py`, `drawing.py`.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from macro.engines.sources import Picture
from macro.engines.stages import Box, Fault, Region
from macro.judges.loading import first_line
from macro.utils.images import Pixels

_BLANK = 255  # white, which the house lays transparent pictures on as well


def answer(
    run: Callable[[list[Any]], list[Any]],
    items: Sequence[Any],
    batch: int,
    key: Callable[[Any], Hashable] = lambda item: None,
) -> list[Any]:
    """`run` over items, at most `batch` at a time, the answers in the items' order.

    Only items of equal `key` (sizes, say) share a batch. An item that is a `Fault` stays it. A batch that a model
    cannot take is asked again item by item, and what still fails is that item's fault: one picture that does not fit
    into memory must not take the others with it. Other errors (of type, of attribute) are defects and go through.

    Args:
        run: items -> as many answers, in order.
        batch: at least 1.
    """
    answers: list[Any] = list(items)
    groups: dict[Hashable, list[int]] = {}
    for i, item in enumerate(items):
        if not isinstance(item, Fault):
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
            return [Fault(f"{type(error).__name__}: {first_line(error)}")]
    return [found for item in items for found in _attempt(run, [item])]


def crop(picture: Picture, region: Region, masked: bool) -> Pixels | Fault:
    """The pixels of a region's box, every pixel that it touches; with `masked` all but its mask is white."""
    height, width = picture.pixels.shape[:2]
    x0, y0, x1, y1 = _pixel_box(region.box, height, width)
    if x1 <= x0 or y1 <= y0 or region.area == 0:
        return Fault(f"the box of {region.label!r} is empty or outside of the picture")
    pixels = picture.pixels[y0:y1, x0:x1]
    if not masked:
        return np.ascontiguousarray(pixels)
    if region.mask is None:
        return Fault(f"{region.label!r} has no mask")
    if region.mask.shape != (height, width):
        return Fault(f"the mask of {region.label!r} is of another size than its picture")
    return np.where(region.mask[y0:y1, x0:x1, None], pixels, np.uint8(_BLANK))


def squared(pixels: Pixels) -> Pixels:
    """The picture in the middle of a white square."""
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
