"""Streams by name, counting among others, and seeds by split."""

import numpy as np
import pytest

from macro.evals.benches.scenes import CALIBRATION, FIRST_SEED
from macro.utils.errors import UserError
from macro.utils.streams import FIRST_EVALUATION_SEED, branch, split_seed, stream


def test_streams_follow_from_their_key():
    assert stream(1, 2, "x").random() == stream(1, 2, "x").random()
    keys = [(1, 2, "x"), (1, 2, "y"), (2, 1, "x"), (1, 2), (1, "x")]
    assert len({stream(*key).random() for key in keys}) == len(keys)


def test_no_two_splits_of_any_seeds_meet():
    seeds = [0, 1, 7, FIRST_EVALUATION_SEED - 1]
    of = {split: {split_seed(seed, split) for seed in seeds} for split in ("train", "eval", "test")}
    assert of["train"] == set(seeds)
    assert len(set.union(*of.values())) == 3 * len(seeds)
    assert min(min(of["eval"]), min(of["test"])) >= 2**32


def test_evaluations_have_seeds_that_no_data_set_has():
    assert FIRST_SEED >= FIRST_EVALUATION_SEED
    for split in ("train", "eval"):
        for seed in (-1, FIRST_SEED, CALIBRATION):
            with pytest.raises(UserError, match="kept for evaluations"):
                split_seed(seed, split)
    assert CALIBRATION + 2**20 < 2**32  # below every other split's


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_ranks_count_the_chosen_before(share):
    chosen = [stream(5, n, "x").random() < share for n in range(1500)]
    before = np.cumsum([0, *chosen])
    for index in (1499, 0, 1, 255, 256, 257, 700):
        rank = before[index] if chosen[index] else index - before[index]
        assert branch(5, index, "x", share) == (chosen[index], rank)
