"""The edit engine: samples hold together, follow from (seed, index), and round trip as records and as files."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from macro.engines import core, edit
from macro.engines.edit import ENGINE, Options
from macro.engines.provider import Provider
from macro.inputs.serialization import decode_sentence, encode_sentence
from macro.scenes.edits import OPERATIONS
from macro.scenes.ground_truth import annotate
from macro.sentence.formats import load_images, read
from macro.sentence.formats.macrodata import write_macrodata
from macro.sentence.plan import Plan
from macro.sentence.prompt import arrange, images_by_number, prompt_of
from macro.sentence.spans import Target
from macro.utils.errors import UserError

OPTIONS = Options(size=48, reference_size=32, rays=1, counts=(1, 2, 3, 4), views=(1, 2))
SEED, COUNT = 3, 24


class Silent:
    """A stage, and the material, that nobody may ask."""

    def __call__(self, *asked):
        raise AssertionError("an exact engine asks nobody")

    photo = clip = story = turntable = panorama = pooled = __call__


STAGES = Provider(Silent())


def make(indices, options=OPTIONS):
    return core.make(ENGINE, STAGES, options, SEED, indices)


@pytest.fixture(scope="module")
def made():
    return make(range(COUNT))


def test_every_place_is_filled_and_every_operation_comes_up(made):
    assert [sample.idx for sample in made.samples] == list(range(COUNT))
    assert {sample.notes["bucket"] for sample in made.samples} == set(OPERATIONS)


def test_a_sample_is_the_same_alone_and_in_a_batch(made):
    assert make([7]).samples == [made.samples[7]]


def test_a_sample_holds_together(made):
    for sample in made.samples:
        operation, images = sample.notes["edit"]["operation"], images_by_number(sample)
        assert sample.task == "edit" and operation == sample.notes["bucket"]
        assert [image.role for image in images] == ["source", *["reference"] * (len(images) - 1)]
        assert images[0].subject is None and {image.subject for image in images[1:]} <= {1}
        assert (len(images) > 1) == (operation in ("add", "replace"))
        assert images[0].pixels.shape == sample.target.pixels.shape == (48, 48, 3)
        assert all(image.pixels.shape == (32, 32, 3) for image in images[1:])
        assert isinstance(sample.spans[-2], Plan) and isinstance(sample.spans[-1], Target)
        np.testing.assert_array_equal(sample.plan.grid, annotate.layout(sample.truth.masks))
        assert sample.plan.named == tuple(range(1, len(sample.truth.kinds) + 1))
        assert sample.plan.cot.split(". ")[1] == "all else stays"
        assert [region["label"] for region in sample.notes["regions"]] == list(sample.truth.kinds)
        mentions = {int(n) for n in re.findall(r"<image (\d+)>", prompt_of(sample))}
        assert mentions | {1} == set(range(1, len(images) + 1))
        assert all(result["kept"] for result in sample.notes["verdicts"])


def test_the_change_shows(made):
    for sample in made.samples:
        source = images_by_number(sample)[0].pixels.astype(int)
        changed = (np.abs(source - sample.target.pixels).max(-1) > 12).mean()
        assert OPTIONS.min_change <= changed < 0.8
        filter_results = {result["filter"]: result["value"] for result in sample.notes["verdicts"]}
        assert filter_results["change"] == pytest.approx(changed)
        assert sample.truth.masks.mean((1, 2)).min() >= OPTIONS.min_area


def test_a_reference_shows_the_newcomer_from_another_view():
    """Its yaw differs by at least a quarter of a radian, so no part of the target is a copy of it."""
    options = replace(OPTIONS, weights=(1, 0, 1, 0, 0))
    batch = core.begin(ENGINE, options, SEED, range(8))
    for step in ENGINE.steps[:1]:
        batch = core.advance(batch, step, STAGES, options)
    for candidate in batch.candidates:
        new = candidate.edit.after.subjects[0]
        for scene in edit._alone(candidate, options):
            (alone,) = scene.subjects
            assert (alone.kind, alone.palette, alone.texture) == (new.kind, new.palette, new.texture)
            assert abs(alone.yaw - new.yaw) > 0.4
            assert scene.surroundings.style == "studio" and scene.light != candidate.edit.after.light


def test_records_and_files_give_it_back(made, tmp_path):
    for sample in made.samples[:6]:
        assert decode_sentence(encode_sentence(sample)) == sample
        write_macrodata(tmp_path / "x.json", sample)
        again = load_images(read(tmp_path / "x.json"))
        assert prompt_of(again) == prompt_of(sample) and again.task == "edit"
        for ours, theirs in zip(images_by_number(sample), images_by_number(again), strict=True):
            assert ours.role == theirs.role
            np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        for arrangement in ("in_sentence", "image_first"):
            assert prompt_of(arrange(sample, arrangement)) == prompt_of(sample)


def test_operations_come_up_by_their_weights_whatever_is_dropped():
    options = replace(OPTIONS, weights=(2, 1, 1, 0, 0))
    drawn = [edit._start(SEED, i, 0, options) for i in range(2000)]
    shares = Counter(candidate.operation for candidate in drawn)
    assert abs(shares["add"] / 2000 - 0.5) < 0.04 and abs(shares["remove"] / 2000 - 0.25) < 0.04
    assert not shares["move"] + shares["recolour"]
    assert all(edit._start(SEED, i, 3, options).operation == drawn[i].operation for i in range(50))


def test_what_shows_too_little_is_dropped_with_its_reason():
    strict = replace(OPTIONS, min_change=0.5, weights=(0, 0, 0, 0, 1))
    dropped = make(range(4), strict)
    assert len(dropped.samples) < 4
    assert {(dead.step, dead.reason) for dead in dropped.dead} == {("change", "hardly anything changes")}
    assert dropped.counts["change", "dropped"] == len(dropped.dead)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"weights": (1, 1)}, "weights must be 5 numbers"),
        ({"counts": (0, 2)}, "counts"),
        ({"counts": (1,)}, "leave none for 'remove'"),
        ({"counts": (12,)}, "leave none for 'add'"),
        ({"views": (12,)}, "views"),
    ],
)
def test_options_refuse_what_makes_no_sense(wrong, said):
    with pytest.raises(UserError, match=said):
        Options(**wrong)
