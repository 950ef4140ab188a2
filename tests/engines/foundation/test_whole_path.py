"""Random weights pass no filter: here the whole foundation path runs with models that know the truth.

Its samples are the procedural ones, word for word and pixel for pixel, though every question went through prompts,
HTTP and JSON, and every image as PNG, to a server that fails now and then.
"""

from dataclasses import replace

import numpy as np
import pytest

from macro.engines import core, inset, macrodata, music
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence
from tests.engines import exact
from tests.engines.foundation.oracle import Oracle, serving_truth

pytestmark = pytest.mark.slow


def both_ways(engine, options, seed, places, folder):
    """(the procedural provider's, the foundation provider's), the latter's also asked a second time."""
    oracle = Oracle(exact.provider())
    expected = core.make(engine, oracle.watching(), options, seed, range(places))
    with serving_truth(oracle, str(folder)) as (provider, server):
        made = core.make(engine, provider, options, seed, range(places))
        asked = len(server.requests)
        again = core.make(engine, provider, options, seed, range(places))
        assert asked == len(server.requests) > places  # and nothing is asked twice
    assert again.samples == made.samples
    assert [sample.idx for sample in made.samples] == [sample.idx for sample in expected.samples]
    assert any(sample.truth is not None for sample in expected.samples)
    assert all(sample.truth is None for sample in made.samples)
    return expected, made


def test_music_through_the_endpoint_equals_music_from_scene_truth(tmp_path):
    options = music.Options(size=64, reference_size=32)
    expected, made = both_ways(music.ENGINE, options, 3, 56, tmp_path)
    assert len(made.samples) >= 50
    assert made.samples == [sample.replace(truth=None) for sample in expected.samples]
    assert made.counts == expected.counts
    subjects = [sample.subjects for sample in made.samples]
    assert {1, 2, 3} & set(subjects) and max(subjects) >= 10 and np.mean(subjects) > 4


def test_inset_too(tmp_path):
    options = inset.Options(reference_size=32, plan=True)
    expected, made = both_ways(inset.ENGINE, options, 3, 16, tmp_path)
    assert len(made.samples) >= 14 and {sample.notes["bucket"] for sample in made.samples} == {"image", "video"}
    assert made.samples == [sample.replace(truth=None) for sample in expected.samples]
    assert made.counts == expected.counts


def test_macro_too(tmp_path):
    """But for customization's layout, which needs the scene."""
    options = macrodata.Options(size=64)
    expected, made = both_ways(macrodata.ENGINE, options, 3, 16, tmp_path)
    assert len(made.samples) == 16
    assert {sample.task for sample in made.samples} == {"customization", "illustration", "spatial", "temporal"}
    for sample, twin in zip(made.samples, expected.samples, strict=True):
        twin = twin.replace(truth=None)
        if sample.task == "customization":
            sample, twin = without_layout(sample), without_layout(twin)
        assert sample == twin


def without_layout(sentence: Sentence) -> Sentence:
    """Without the plan, whose subjects images show, and what the notes say of them."""
    spans = (replace(s, subject=None) if isinstance(s, Image) else s for s in sentence.spans if not isinstance(s, Plan))
    notes = {name: note for name, note in sentence.notes.items() if name != "regions"}
    notes["verdicts"] = [result for result in notes["verdicts"] if result["filter"] != "layout"]
    return sentence.replace(spans=tuple(spans), notes=notes)
