"""The published mixture, in rounds."""

from collections import Counter

import pytest

from macro.engines.macrodata import TASKS, Options, customization, illustration
from macro.engines.macrodata.filters import marker_error
from macro.engines.macrodata.mixture import BUCKETS, CYCLE, WEIGHTS, pair_of, references_of
from macro.utils.errors import UserError


def test_the_first_sixteen_are_one_of_each_and_eighty_are_exactly_proportional():
    pairs = {(task, bucket) for task in TASKS for bucket in BUCKETS}
    assert {pair_of(n) for n in range(16)} == pairs == set(WEIGHTS)
    assert len(CYCLE) == 80
    for start in (0, 80, 37):
        assert Counter(pair_of(n) for n in range(start, start + 80)) == WEIGHTS
    shares = [WEIGHTS["customization", bucket] for bucket in BUCKETS]
    assert [share * 5000 for share in shares] == [20000, 20000, 30000, 30000]
    assert all(WEIGHTS[task, bucket] * 5000 == 25000 for task, bucket in pairs if task != "customization")


def test_numbers_of_references_are_even_within_a_bucket_and_the_same_for_every_attempt():
    for bucket, counts in BUCKETS.items():
        drawn = Counter(references_of(1, n, bucket) for n in range(600))
        assert set(drawn) == set(counts) and min(drawn.values()) > 0.75 * 600 / len(counts)
    for attempt in range(3):
        candidate = customization.start(3, 8, attempt, "6-7", Options())
        assert candidate.categories == customization.start(3, 8, 0, "6-7", Options()).categories
        assert len(candidate.categories) in (6, 7)
        assert illustration.start(3, 8, attempt, "8-10", Options()).wanted in (8, 9, 10)


def test_prompts_must_name_each_of_their_images():
    assert marker_error("<image 2> and <image 1>", 2) == ""
    assert "does not name <image 2>" in marker_error("<image 1>", 2)
    assert "names <image 3>, but there are 2" in marker_error("<image 1> <image 2> <image 3>", 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"K": "many"}, "K is one of"), ({"region": "shape"}, "region of"), ({"threshold": 11.0}, "threshold=11.0"),
        ({"proposals": 0}, "proposals=0"), ({"image_first": 2.0}, "image_first=2.0"), ({"stories": 0}, "stories=0"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Options(**wrong)
