"""Samples follow from (seed, index) alone, and hold together: numbers, images, plan, truth."""

import re
from dataclasses import replace

import numpy as np
import pytest

from macro.engines import scenes as scenes_engine
from macro.engines.scenes import BUCKETS, Options
from macro.scenes.ground_truth import annotate
from macro.scenes.layout import layout_sampler
from macro.sentence.plan import Plan
from macro.sentence.prompt import arrange, prompt_of
from macro.sentence.spans import Target
from macro.utils.errors import UserError

OPTIONS = Options(size=32, reference_size=32, rays=1, tries=2, min_area=0.02)
SEED, COUNT = 11, 19


@pytest.fixture(scope="module")
def batch():
    return scenes_engine.samples(SEED, 5, COUNT, OPTIONS)


def test_a_sample_is_the_same_alone_and_in_a_batch(batch):
    for place in (0, 3, COUNT - 1):
        assert scenes_engine.samples(SEED, 5 + place, 1, OPTIONS)[0] == batch[place]
    assert scenes_engine.samples(SEED, 7, 4, OPTIONS) == batch[2:6]


def test_other_seeds_and_indices_give_other_samples(batch):
    other = scenes_engine.samples(SEED + 1, 5, 1, OPTIONS)[0]
    assert other != batch[0]
    assert len({prompt_of(sample) for sample in batch}) == COUNT


def test_a_sample_holds_together(batch):
    for index, sample in enumerate(batch, 5):
        truth, count = sample.truth, len(sample.truth.kinds)
        assert (sample.idx, sample.task) == (index, "compose")
        assert [image.subject for image in sample.images] == list(range(1, count + 1))
        assert [image.number for image in sample.images] == list(range(1, count + 1))
        assert all(image.pixels.shape == (32, 32, 3) for image in sample.images)
        assert isinstance(sample.spans[-2], Plan) and isinstance(sample.spans[-1], Target)
        assert sample.target.pixels.shape == (32, 32, 3)
        np.testing.assert_array_equal(sample.plan.grid, annotate.layout(truth.masks))
        assert sorted(truth.depth_order) == list(range(1, count + 1))
        assert len(truth.questions) == 6


def test_both_arrangements_come_up_and_carry_one_prompt(batch):
    firsts = [sample.spans[0] for sample in batch]
    lists = [getattr(first, "text", "") == "<image 1>" for first in firsts]
    assert any(lists) and not all(lists)
    for sample in batch:
        prompt = prompt_of(sample)
        mentions = dict.fromkeys(int(n) for n in re.findall(r"<image (\d+)>", prompt))
        assert list(mentions) == [image.number for image in sample.images]
        assert prompt_of(arrange(sample, "in_sentence")) == prompt


def test_references_show_the_subject_alone_and_are_no_crops(batch):
    for sample in batch:
        images = [image.pixels.tobytes() for image in sample.images]
        assert len(set(images)) == len(images)
        # A neutral backdrop all around: the corners of one reference are nearly of one colour, and pale.
        for image in sample.images:
            corners = image.pixels[[0, 0], [0, -1]].astype(float)
            assert np.ptp(corners, axis=-1).max() < 60


def test_several_views_of_a_subject_share_its_number():
    options = replace(OPTIONS, views=(1, 2, 3), counts=(0, 0, 1) + (0,) * 8 + (1,), tries=1)
    seen = set()
    for sample in scenes_engine.samples(SEED, 0, 8, options):
        subjects = [image.subject for image in sample.images]
        count = len(sample.truth.kinds)
        assert subjects == sorted(subjects) and set(subjects) == set(range(1, count + 1))
        assert len(subjects) <= 12
        seen.add((count, len(subjects) > count))
        prompt = prompt_of(sample)
        numbers = list(dict.fromkeys(int(n) for n in re.findall(r"<image (\d+)>", prompt)))
        assert numbers == list(range(1, len(subjects) + 1))
    assert (3, True) in seen and (12, False) in seen


def test_the_default_mixture_fills_all_buckets_alike():
    drawn = np.array([scenes_engine._counts(SEED, i, Options()) for i in range(2000)])
    shares = np.array([np.isin(drawn[:, 0], bucket).mean() for bucket in BUCKETS])
    assert abs(shares - 0.2).max() < 0.03
    able = (drawn[:, 0] >= 2) & (drawn[:, 0] < 12)
    assert abs((drawn[able, 1] > 0).mean() - 0.25) < 0.03
    assert (drawn.sum(1) <= 12).all() and not drawn[~able, 1].any()


def test_decimation_leaves_the_rest_of_a_larger_scene_in_place(monkeypatch):
    options = replace(OPTIONS, counts=(0, 0, 0, 1) + (0,) * 8, decimation=1.0)
    larger, original = [], layout_sampler.sample_scene

    def spy(rng, count):
        larger.append(original(rng, count))
        return larger[-1]

    monkeypatch.setattr(layout_sampler, "sample_scene", spy)
    scenes = [scenes_engine._scene(SEED, i, 0, options) for i in range(6)]
    for scene, whole in zip(scenes, larger, strict=True):
        assert len(scene.subjects) == 4 < len(whole.subjects)
        stood = {(s.kind, s.palette, s.position) for s in whole.subjects}
        assert {(s.kind, s.palette, s.position) for s in scene.subjects} < stood


def test_rejected_scenes_are_drawn_again_and_the_best_stays():
    """A bound that hardly any scene meets: more tries can only make the worst subject larger."""
    hard = replace(OPTIONS, min_area=0.06, tries=1, counts=(0,) * 5 + (1,) + (0,) * 6)
    once = scenes_engine.draw_scenes(SEED, range(16), hard)
    often = scenes_engine.draw_scenes(SEED, range(16), replace(hard, tries=3))
    faults = np.array([[a.fault, b.fault] for a, b in zip(once, often, strict=True)])
    assert (faults[:, 1] <= faults[:, 0]).all() and faults[:, 1].sum() < faults[:, 0].sum()
    assert [len(d.scene.subjects) for d in often] == [6] * 16


def test_every_subject_shows_and_holds_a_cell(batch):
    for sample in batch:
        areas = sample.truth.masks.mean((1, 2))
        assert (areas > 0.005).all()
        assert sample.plan.named == tuple(range(1, len(areas) + 1))


def test_rerendered_targets_show_the_same_subjects_in_other_light(batch):
    again = scenes_engine.rerenders(SEED, 5, 1, OPTIONS)[0]
    target = batch[0].target.pixels
    assert again.shape == target.shape and again.dtype == target.dtype
    assert not np.array_equal(again, target)
    np.testing.assert_array_equal(again, scenes_engine.rerenders(SEED, 4, 2, OPTIONS)[1])
    # Most of the image is where it was: much closer to its own target than to others'.
    own = np.abs(again.astype(float) - target).mean()
    others = [np.abs(again.astype(float) - sample.target.pixels).mean() for sample in batch[1:]]
    assert own < min(others)


def test_options_refuse_what_makes_no_sense():
    with pytest.raises(UserError, match="counts must be 12 weights"):
        Options(counts=(1.0, 2.0))
    with pytest.raises(UserError, match="views"):
        Options(views=(0,))
