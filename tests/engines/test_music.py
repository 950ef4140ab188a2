"""MUSIC's engine on the procedural provider: whole samples, filters that filter, and what noise does to them."""

import re
from collections import Counter

import numpy as np
import pytest

from macro.engines import core, music
from macro.engines.ground_truth import overlap
from macro.scenes.ground_truth import annotate
from macro.sentence.prompt import prompt_of
from macro.utils.errors import UserError
from tests.engines import exact

OPTIONS = music.Options(size=64, reference_size=32)
COUNT = 24


@pytest.fixture(scope="module")
def made():
    return core.make(music.ENGINE, exact.provider(), OPTIONS, 0, range(COUNT))


def test_without_noise_every_place_is_filled_with_a_whole_sample(made):
    assert [sample.idx for sample in made.samples] == list(range(COUNT)) and not made.dead
    for sample in made.samples:
        count = len(sample.images)
        assert count <= len(sample.truth.kinds)  # what is too small to be asked for is still in the image
        mentioned = dict.fromkeys(int(n) for n in re.findall(r"<image (\d+)>", prompt_of(sample)))
        assert list(mentioned) == [image.number for image in sample.images] == list(range(1, count + 1))
        assert sample.plan.named == tuple(range(1, count + 1))
        assert sample.target.pixels.shape == (64, 64, 3)
        assert all(image.pixels.shape == (32, 32, 3) for image in sample.images)
        assert sample.notes["bucket"] == music.bucket_of(count)
        assert all(result["kept"] for result in sample.notes["verdicts"])


def test_the_layout_is_the_paper_rule_on_exact_masks(made):
    for sample in made.samples:
        assert set(sample.notes["shapes"]) == {"mask"}
        np.testing.assert_array_equal(sample.plan.grid, annotate.layout(sample.truth.masks[: len(sample.images)]))
        for region, box in zip(sample.notes["regions"], sample.truth.boxes, strict=False):
            assert overlap(tuple(region["box"]), tuple(map(float, box))) == pytest.approx(1)
            assert (box[2] - box[0]) * (box[3] - box[1]) >= OPTIONS.min_area


def test_a_sample_is_the_same_alone(made):
    for index in (3, 17):
        alone = core.make(music.ENGINE, exact.provider(), OPTIONS, 0, [index])
        assert alone.samples == [made.samples[index]]
    assert core.make(music.ENGINE, exact.provider(), OPTIONS, 1, [3]).samples != [made.samples[3]]


def test_counts_follow_their_weights():
    wanted = [music.start(0, i, 0, music.Options()).count for i in range(3000)]
    shares = np.bincount(wanted, minlength=13)[1:] / 3000
    np.testing.assert_allclose(shares, music.Options().counts, atol=0.02)
    assert {music.start(0, 5, attempt, OPTIONS).count for attempt in range(4)} == {music.start(0, 5, 0, OPTIONS).count}


def test_decimation_leaves_the_largest_and_draws_again():
    options = music.Options(size=64, reference_size=32, counts=(0, 1) + (0,) * 10, decimation=1.0)
    made = core.make(music.ENGINE, exact.provider(), options, 4, range(8))
    for sample in made.samples:
        assert len(sample.truth.kinds) == 2 == len(sample.images)
        # What left is named in the caption that the first image was drawn from, and is not in the target.
        assert sample.notes["caption"].count(",") >= 2
        assert set(np.unique(sample.plan.grid)) == {0, 1, 2}


def test_subjects_that_detectors_miss_leave_the_sample():
    noisy = core.make(music.ENGINE, exact.provider(missed=0.7), OPTIONS, 0, range(COUNT))
    shares = Counter()
    for sample in noisy.samples:
        shares["left"] += len(sample.images)
        found = next(v for v in sample.notes["verdicts"] if v["filter"] == "detect")
        shares["asked"] += round(len(sample.images) / found["value"]) if found["value"] else 0
        assert len(sample.images) >= 2 or found["value"] == 1
    assert shares["left"] < 0.85 * shares["asked"]
    dropped = [dead for dead in noisy.dead if dead.step == "detect"]
    assert dropped and all(re.fullmatch(r"\d+ of \d+ subjects left", dead.reason) for dead in dropped)
    assert noisy.counts["detect", "dropped"] == len(dropped)


def test_swapped_labels_are_caught_by_the_check():
    swapped = core.make(music.ENGINE, exact.provider(swapped=1.0), OPTIONS, 0, range(COUNT))
    for sample in swapped.samples:
        for region, kind in zip(sample.notes["regions"], sample.truth.kinds, strict=False):
            assert kind in region["label"]


def test_bad_masks_send_the_layout_back_to_boxes():
    bled = core.make(music.ENGINE, exact.provider(masks=0.9), OPTIONS, 0, range(COUNT))
    shapes = Counter(shape for sample in bled.samples for shape in sample.notes["shapes"])
    assert shapes["box"] > 0 and shapes["mask"] > 0


@pytest.mark.parametrize(
    ("setting", "message"),
    (
        ({"counts": (0,) * 12}, "counts"),
        ({"K": "some"}, "K is one of"),
        ({"min_area": 1.5}, r"min_area=1\.5"),
        ({"size": 0}, "size=0"),
    ),
)
def test_settings_that_make_no_sense_are_named(setting, message):
    with pytest.raises(UserError, match=message):
        music.Options(**setting)
