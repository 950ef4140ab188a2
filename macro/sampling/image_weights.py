"""Image strengths in sampling: a factor on the attention weights of each image's tokens.

    softmax weights of an image's keys ~ strength * exp(q . k / sqrt(d))

so 1 is as trained, 2 as if its tokens were there twice, 0 as if they were masked. It is applied as a key bias of
log(strength) (`macro/kernels/attention/api.py`). The text and the plan still attend to the image as trained.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from macro.sampling.contexts import image_of
from macro.sentence.prompt import images_by_number
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import UserError


def check_weights(strengths: Sequence[float] | None, images: int) -> None:
    """Raises UserError unless there is one number >= 0 per image, or None for the default."""
    if strengths is None:
        return
    if len(strengths) != images:
        raise UserError(f"strengths: {len(strengths)} for {images} images; give one for each")
    if not all(0 <= strength < math.inf for strength in strengths):
        raise UserError(f"strengths: {list(strengths)}; each must be at least 0, and 1 changes nothing")


def by_span(sentence: Sentence, strengths: Sequence[float]) -> list[float]:
    """Reorders strengths from image numbers (images after the prompt come last) to the order of the spans with images.

    Targets get 1.
    """
    numbered = list(images_by_number(sentence))
    waiting = list(zip([*numbered, *sentence.images[len(numbered) :]], strengths, strict=True))
    found = []
    for span in sentence:
        if isinstance(span, Image):
            place = next(n for n, (image, _) in enumerate(waiting) if image is span)
            found.append(waiting.pop(place)[1])
        elif isinstance(span, Target):
            found.append(1.0)
    return found


def key_biases(
    sentences: Sequence[Sentence],
    strengths: Sequence[Sequence[float] | None],
    names: Sequence[np.ndarray],
    size: int,
) -> dict[str, jax.Array]:
    """`bias` [contexts x sentences, size] of a cache's keys; empty if all strengths are 1.

    Args:
        names: of each context's tokens, [s, n] (`contexts.Prompt`).
    """
    if all(each is None or set(each) <= {1} for each in strengths):
        return {}
    rows = []
    for context in names:
        for row, sentence, each in zip(context, sentences, strengths, strict=True):
            # A strength of 0 leaves a weight that rounds to nothing. The last entry is for text.
            factors = [1.0] if each is None else [*by_span(sentence, each), 1.0]
            logs = np.log(np.maximum(np.array(factors, np.float32), 1e-30))
            bias = np.zeros(len(row), np.float32) if each is None else logs[image_of(row)]
            rows.append(np.pad(bias, (0, size - len(row))))
    return {"bias": jnp.asarray(np.stack(rows))}
