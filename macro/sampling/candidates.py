"""Several plans and their pictures for one sentence, all kept; the best one picked.

Here the best is the plan that the model finds likeliest, by its mean log-likelihood per token: one that the
planner itself doubts falls behind. A plan that is given scores the same in every candidate, and the first
picture stands. Read next: `macro/sampling/pipeline.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from macro.sentence.plan import Plan


@dataclass(frozen=True, eq=False)
class Candidate:
    """One plan and the picture drawn from it.

    Attributes:
        plan: words and layout.
        pixels: uint8[h, w, 3].
        score: mean log-likelihood of the plan's tokens, nats; 0 is certainty.
    """

    plan: Plan
    pixels: np.ndarray
    score: float


def pick(candidates: Sequence[Candidate]) -> int:
    """The number of the candidate with the highest score; the first among equals."""
    return int(np.argmax([candidate.score for candidate in candidates]))
