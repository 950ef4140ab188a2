"""Detection, masks and similarity from the truth: exact, or wrong at the rate that was asked for."""

import numpy as np
import pytest

from macro.engines.ground_truth import box_of, ground_truths, labels, overlap
from macro.engines.material.types import EngineImage
from macro.engines.procedural import Noise
from macro.engines.procedural.vision import bled, box_pixels, jittered
from macro.engines.provider import Region
from macro.utils.errors import ItemError, UserError
from tests.engines import exact


@pytest.fixture(scope="module")
def images():
    return exact.images(24, subjects=5)


@pytest.fixture(scope="module")
def names(images):
    return [labels(truth) for truth in ground_truths(images)]


def test_everything_asked_for_is_found_in_the_order_of_the_labels(images, names):
    asked = [list(reversed(each)) for each in names]
    for found, each, truth in zip(exact.provider().detect(images, asked), asked, ground_truths(images), strict=True):
        assert [region.label for region in found] == each
        for region, i in zip(found, reversed(range(5)), strict=True):
            assert region.box == box_of(truth, i)


def test_a_label_that_stands_twice_asks_for_two(images):
    twins = next(p for p in exact.images(40, 6, seed=3) if len({s.kind for s in p.scene.subjects}) < 6)
    kinds = [s.kind for s in twins.scene.subjects]
    double = next(kind for kind in kinds if kinds.count(kind) > 1)
    (found,) = exact.provider().detect([twins], [[double, double, double]])
    assert len(found) == kinds.count(double)
    assert len({region.box for region in found}) == len(found)


def test_what_is_not_there_is_not_found(images):
    (found,) = exact.provider().detect(images[:1], [["no such thing"]])
    assert found == []


def test_real_images_are_a_fault():
    photo = EngineImage(np.zeros((8, 8, 3), np.uint8))
    provider = exact.provider()
    assert isinstance(provider.detect([photo], [["dog"]])[0], ItemError)
    assert isinstance(provider.novel_view([photo], [Region("dog", (0.0, 0.0, 1.0, 1.0))], [8], [0])[0], ItemError)


def test_boxes_are_verified_by_what_is_in_them(images):
    regions = exact.regions(images)
    assert all(all(answer) for answer in exact.provider().verify(images, regions))
    moved = [[Region(a.label, b.box) for a, b in zip(r, r[1:] + r[:1], strict=True)] for r in regions]
    apart = [
        answer
        for image, answers in zip(moved, exact.provider().verify(images, moved), strict=True)
        for region, answer in zip(image, answers, strict=True)
    ]
    assert np.mean(apart) < 0.1  # but for subjects whose boxes happen to lie on each other


def test_masks_are_the_truth(images):
    for masks, truth in zip(
        exact.provider().segment(images, exact.regions(images)), ground_truths(images), strict=True
    ):
        np.testing.assert_array_equal(np.stack(masks), truth.masks)


def test_an_exact_mask_fits_its_label_best(images):
    provider = exact.provider()
    masks = provider.segment(images, exact.regions(images))
    for image, regions, shapes in zip(images, exact.regions(images), masks, strict=True):
        for region, mask in zip(regions, shapes, strict=True):
            cut = Region(region.label, region.box, mask=mask)
            with_mask, with_box = (
                provider.text_similarity([image], [cut], [region.label], [masked])[0] for masked in (True, False)
            )
            assert with_mask == pytest.approx(1) and with_box < 1
            assert provider.text_similarity([image], [cut], ["nothing of the kind"], [True]) == [0.0]


@pytest.mark.parametrize("rate", (0.0, 0.3, 1.0))
def test_detectors_miss_at_the_rate(images, names, rate):
    found = exact.provider(missed=rate).detect(images, names)
    share = 1 - sum(map(len, found)) / sum(map(len, names))
    assert share == pytest.approx(rate, abs=0.12)
    again = exact.provider(missed=rate).detect(images, names)
    assert [[r.label for r in regions] for regions in again] == [[r.label for r in regions] for regions in found]


def test_labels_are_swapped_and_checks_answer_wrongly_when_told_to(images, names):
    swapped = exact.provider(swapped=1.0).detect(images, names)
    for found, truth in zip(swapped, ground_truths(images), strict=True):
        wrong = [region.box != box_of(truth, i) for i, region in enumerate(found)]
        assert sum(wrong) == 2
    assert not any(any(answer) for answer in exact.provider(verified=1.0).verify(images, exact.regions(images)))


def test_boxes_jitter_within_the_image():
    rng = np.random.default_rng(0)
    box = (0.2, 0.3, 0.9, 0.7)
    assert jittered(box, 0.0, rng) == box
    shares = []
    for _ in range(200):
        x0, y0, x1, y1 = jittered(box, 0.2, rng)
        assert 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1
        shares.append(overlap(box, (x0, y0, x1, y1)))
    assert 0.4 < np.mean(shares) < 0.9


def test_masks_bleed_and_shrink():
    mask = box_pixels((0.25, 0.25, 0.75, 0.75), (64, 64))
    assert mask.sum() == 32 * 32
    np.testing.assert_array_equal(bled(mask, 0.0), mask)
    grown, shrunk = bled(mask, 0.125), bled(mask, -0.125)
    assert (grown & ~mask).any() and not (mask & ~grown).any()
    assert (mask & ~shrunk).any() and not (shrunk & ~mask).any()
    assert shrunk.sum() == 24 * 24  # four pixels from every side


def test_rates_beyond_their_range_are_refused():
    with pytest.raises(UserError, match=r"missed=1\.5 must lie in 0\.\.1"):
        Noise(missed=1.5)
