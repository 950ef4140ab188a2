"""What is done to a picture or to a sentence before it is packed: sizes, patches, condition dropout.

Sizes follow BAGEL's rule (`fit_size`). Condition dropout teaches the contexts that guidance will ask for
(`macro/sampling/contexts.py`), so a context is defined here once, for training and sampling alike:

    full      everything
    no_text   pictures only: all text, the plan and with it the binding are gone
    no_image  text and plan only
    null      nothing but the target

Read next: `macro/inputs/pieces.py`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError
from macro.utils.image import nearest_size, size_of, to_float

CONTEXTS = ("full", "no_text", "no_image", "null")


def fit_size(
    height: int,
    width: int,
    max_side: int,
    stride: int,
    min_side: int = 0,
    max_pixels: int = 14 * 14 * 9 * 1024,
) -> tuple[int, int]:
    """The size a picture is brought to: aspect kept, both sides multiples of `stride`.

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
    """The size of at most about `pixels` with the same aspect; a picture that is small enough keeps its own."""
    scale = min(1.0, (pixels / (height * width)) ** 0.5)
    return max(1, round(height * scale)), max(1, round(width * scale))


def drawn_size(
    buckets: Sequence[Sequence[int]], source: str | os.PathLike | np.ndarray | None = None
) -> tuple[int, int]:
    """The (height, width) that a picture is drawn at, of those that a model was trained on: (height, width, ...) each.

    The first, or for the edit of a `source` (a file or pixels) the one of its shape.
    """
    sizes = [(bucket[0], bucket[1]) for bucket in buckets]
    if source is None:
        return sizes[0]
    return nearest_size(source.shape[:2] if isinstance(source, np.ndarray) else size_of(source), sizes)


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


@dataclass(frozen=True)
class Dropped:
    """Which spans of a sentence are left out, by their index in it.

    Attributes:
        spans: text and plan spans that are gone without trace.
        vision, clean: spans whose ViT tokens, and whose clean VAE tokens, are gone (RoPE still moves on).
        scored: whether text that is left is still learnt from.
    """

    spans: frozenset[int] = frozenset()
    vision: frozenset[int] = frozenset()
    clean: frozenset[int] = frozenset()
    scored: bool = True


def dropped_in(context: str, sentence: Sentence) -> Dropped:
    """What `context` (one of CONTEXTS) leaves out of a sentence."""
    words = frozenset(i for i, span in enumerate(sentence) if isinstance(span, Text | Plan))
    pictures = frozenset(i for i, span in enumerate(sentence) if isinstance(span, Image | Target))
    if context not in CONTEXTS:
        raise ValueError(f"context {context!r}: must be one of {', '.join(CONTEXTS)}")
    no_words = words if context in ("no_text", "null") else frozenset()
    no_pictures = pictures if context in ("no_image", "null") else frozenset()
    return Dropped(no_words, no_pictures, no_pictures, scored=context == "full")


def draw_context(
    rng: np.random.Generator, sentence: Sentence, no_text: float, no_image: float, null: float
) -> str:
    """One context for a training sample, drawn jointly for all its spans.

    A sentence without a target is never cut: it has nothing that could be drawn from what is left.
    """
    chance = rng.random()  # drawn in any case, so that what follows does not depend on the sentence
    if sentence.target is None:
        return "full"
    for context, share in (("no_text", no_text), ("no_image", no_image), ("null", null)):
        if chance < share:
            return context
        chance -= share
    return "full"


def draw_items(
    rng: np.random.Generator, sentence: Sentence, text: float, vision: float, clean: float
) -> Dropped:
    """BAGEL's dropout, for parity: each text, each ViT copy and each clean VAE copy for itself.

    Text that is learnt, and sentences without a target, are never dropped.
    """
    chances = rng.random((3, len(sentence)))
    if sentence.target is None:
        return Dropped()
    words = {i for i, s in enumerate(sentence) if isinstance(s, Plan) or isinstance(s, Text) and not s.learn}
    pictures = {i for i, s in enumerate(sentence) if isinstance(s, Image | Target)}
    return Dropped(
        frozenset(i for i in words if chances[0, i] < text),
        frozenset(i for i in pictures if chances[1, i] < vision),
        frozenset(i for i in pictures if chances[2, i] < clean),
    )
