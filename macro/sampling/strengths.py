"""How much each reference counts in drawing: a number that its tokens' weights in attention are multiplied with.

    softmax weights of a picture's keys ~ strength * exp(q . k / sqrt(d))

so 1 is as trained, 2 as if its tokens were there twice, 0 as if they were not seen. It becomes a bias of keys, log
strength (`macro/kernels/attention/api.py`). What words and plan have read of a picture stays in them.
"""

import math
from collections.abc import Sequence

import numpy as np

from macro.sentence.formats import numbered_images
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import UserError


def check_strengths(strengths: Sequence[float] | None, pictures: int) -> None:
    """Raises UserError unless there is a number from 0 for each of so many pictures (None: nothing is asked for)."""
    if strengths is None:
        return
    if len(strengths) != pictures:
        raise UserError(f"strengths: {len(strengths)} for {pictures} pictures; give one for each")
    if not all(0 <= strength < math.inf for strength in strengths):
        raise UserError(f"strengths: {list(strengths)}; each must be at least 0, and 1 changes nothing")


def by_span(sentence: Sentence, strengths: Sequence[float]) -> list[float]:
    """Strengths by number of the picture (those after the prompt follow it), as its spans with pictures stand.

    Targets have 1.
    """
    numbered = list(numbered_images(sentence))
    waiting = list(zip([*numbered, *sentence.images[len(numbered) :]], strengths, strict=True))
    found = []
    for span in sentence:
        if isinstance(span, Image):
            place = next(n for n, (image, _) in enumerate(waiting) if image is span)
            found.append(waiting.pop(place)[1])
        elif isinstance(span, Target):
            found.append(1.0)
    return found


def log_strengths(strengths: Sequence[float]) -> np.ndarray:
    """The bias of each picture's keys, float32, and 0 behind them for tokens of no picture (number -1)."""
    # A strength of 0 leaves a weight that no float tells from nothing.
    return np.log(np.maximum(np.array([*strengths, 1.0], np.float32), 1e-30))
