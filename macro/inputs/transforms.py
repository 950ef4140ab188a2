"""What is done to an image before it is packed: sizes by BAGEL's rule, patches, position ids.

Read next: `macro/inputs/image_spec.py`.
"""


import numpy as np
from jaxtyping import Float32

from macro.utils.errors import UserError
from macro.utils.images import to_float


def fit_size(
    height: int,
    width: int,
    max_side: int,
    stride: int,
    min_side: int = 0,
    max_pixels: int = 14 * 14 * 9 * 1024,
) -> tuple[int, int]:
    """The size an image is brought to: aspect kept, both sides multiples of `stride`.

    BAGEL's rule: the longer side at most `max_side`, then the shorter at least `min_side`, then the area at
    most `max_pixels`. (Upstream scales the sides by the ratio of areas, not its root; kept for parity.)

    Args and returns in pixels; returns (height, width).
    """
    scale = max(min(max_side / max(height, width), 1.0), min_side / min(height, width))
    height, width = _scaled(height, width, scale, stride)
    if height * width > max_pixels:
        height, width = _scaled(height, width, max_pixels / (height * width), stride)
    if max(height, width) > max_side:
        height, width = _scaled(height, width, max_side / max(height, width), stride)
    return height, width


def within(height: int, width: int, pixels: int) -> tuple[int, int]:
    """The size of at most about `pixels` with the same aspect; an image that is small enough keeps its own."""
    scale = min(1.0, (pixels / (height * width)) ** 0.5)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _scaled(height: int, width: int, scale: float, stride: int) -> tuple[int, int]:
    def side(n: int) -> int:
        return max(stride, round(round(n * scale) / stride) * stride)

    return side(height), side(width)


def patchify(pixels: np.ndarray, patch: int) -> Float32[np.ndarray, "n d"]:
    """Patches row by row as vectors (ph, pw, c).

    Args:
        pixels: uint8[h, w, 3] (brought to -1..1), or float32 already in -1..1; h and w are
            multiples of `patch`.
    """
    if pixels.dtype == np.uint8:
        pixels = to_float(pixels)
    h, w, c = pixels.shape
    patches = pixels.reshape(h // patch, patch, w // patch, patch, c).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(patches.reshape(-1, patch * patch * c), np.float32)


def grid_positions(rows: int, columns: int, side: int) -> np.ndarray:
    """int32[rows * columns] position ids row * side + column, in a table of `side` x `side` positions.

    Raises:
        UserError: more rows or columns than the table has.
    """
    if max(rows, columns) > side:
        raise UserError(
            f"image of {rows} x {columns} tokens: the model's position table reaches {side} a side; scale it down"
        )
    return (np.arange(rows)[:, None] * side + np.arange(columns)).reshape(-1).astype(np.int32)
