"""Random weights pass no filter: here the whole foundation path runs with models that know the truth.

Its samples are the procedural ones, word for word and pixel for pixel, though every question went through prompts,
HTTP and JSON, and every picture as PNG, to a server that fails now and then.
"""

import numpy as np
import pytest

from macro.engines import drafts, music
from tests.engines import exact
from tests.engines.foundation import oracle

SEED, PLACES = 3, 56


@pytest.mark.slow
def test_music_through_the_endpoint_equals_music_from_scene_truth(tmp_path):
    options = music.Options(size=64, reference_size=32)
    expected = drafts.make(music.ENGINE, exact.stages(), options, SEED, range(PLACES))
    with oracle.provider(exact.stages(), str(tmp_path), whims=True) as (stages, server):
        made = drafts.make(music.ENGINE, stages, options, SEED, range(PLACES))
        asked = len(server.requests)
        again = drafts.make(music.ENGINE, stages, options, SEED, range(PLACES))
        assert len(server.requests) == asked  # nothing is asked twice
    assert len(made.samples) >= 50
    assert [sample.idx for sample in made.samples] == [sample.idx for sample in expected.samples]
    for sample, exact_one in zip(made.samples, expected.samples, strict=True):
        assert sample.truth is None and exact_one.truth is not None
        assert sample == exact_one.replace(truth=None)
    assert again.samples == made.samples
    assert made.counts == expected.counts
    assert asked > 4 * PLACES and {request["model"] for request in server.requests} == {"oracle"}
    subjects = [sample.subjects for sample in made.samples]
    assert {1, 2, 3} & set(subjects) and max(subjects) >= 10 and np.mean(subjects) > 4
