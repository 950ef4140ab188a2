"""The whole engine: steps leave other tasks' candidates alone, and the first sixteen samples are one of each pair."""

import dataclasses

import pytest
from engines.exact import provider

from macro.engines import core
from macro.engines.macrodata import ENGINE, Options, view_overlap
from macro.engines.macrodata.mixture import BUCKETS, pair_of

OPTIONS = Options(size=32)


def test_a_step_touches_the_candidates_of_its_task_only():
    batch = core.begin(ENGINE, OPTIONS, 0, range(8))
    first = next(step for step in ENGINE.steps if step.name == "customization propose")
    after = core.advance(batch, first, provider(), OPTIONS)
    for old, new in zip(batch.candidates, after.candidates, strict=True):
        assert (old is new) == (old.task != "customization")


def test_names_are_where_they_are_looked_for():
    assert ENGINE.name == "macrodata" and ENGINE.options is Options
    assert view_overlap(0, 0, 0, 0, 90, 90) == pytest.approx(1.0)
    assert len({step.name for step in ENGINE.steps}) == len(ENGINE.steps)


@pytest.mark.slow
def test_sixteen_samples_are_one_of_each_pair():
    made = core.make(ENGINE, provider(), dataclasses.replace(OPTIONS, stories=20), 0, range(16))
    assert len(made.samples) >= 15
    for sample in made.samples:
        task, bucket = pair_of(sample.idx)
        assert (sample.task, sample.notes["bucket"]) == (task, bucket)
        assert len(sample.images) in BUCKETS[bucket]
        assert sample.notes["engine"] == "macrodata 1.1.0" and sample.notes["verdicts"]
