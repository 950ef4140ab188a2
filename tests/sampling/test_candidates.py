import numpy as np

from macro.sampling.candidates import Candidate, pick
from macro.sentence.plan import Plan


def _candidates(*scores):
    return [Candidate(Plan("x"), np.zeros((1, 1, 3), np.uint8), score) for score in scores]


def test_the_highest_score_wins_and_the_first_among_equals():
    assert pick(_candidates(-2.0, -0.5, -1.0)) == 1
    assert pick(_candidates(-1.0, -1.0)) == 0
