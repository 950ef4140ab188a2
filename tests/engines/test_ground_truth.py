"""Truth of rendered images, and truth about some of their subjects."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.engines import ground_truth
from macro.engines.provider import Region
from macro.scenes.ground_truth import annotate
from macro.scenes.layout.placement import supports_of
from tests.engines import exact

BOX = st.tuples(*[st.integers(0, 8)] * 4).map(lambda b: tuple(float(edge) / 8 for edge in b))


@pytest.fixture(scope="module")
def images():
    return exact.images(6, subjects=5)


def test_truth_is_that_of_the_rendered_scene_whatever_it_is_asked_with(images):
    together = ground_truth.ground_truths(images)
    assert [len(truth.kinds) for truth in together] == [5] * 6
    assert ground_truth.ground_truths(images[2:3]) == [together[2]]
    assert ground_truth.ground_truths(images[::-1])[0] == together[-1]
    for truth in together:
        np.testing.assert_array_equal(truth.boxes, annotate.tight_boxes(truth.masks))


def test_labels_tell_subjects_apart(images):
    for truth in ground_truth.ground_truths(exact.images(12, subjects=9, seed=5)):
        names = ground_truth.labels(truth)
        assert len(set(names)) == len(names)
        assert all(kind in name for kind, name in zip(truth.kinds, names, strict=True))


@settings(max_examples=60, deadline=None)
@given(BOX, BOX)
def test_overlap_is_symmetric_and_one_for_itself(a, b):
    assert ground_truth.overlap(a, b) == ground_truth.overlap(b, a)
    assert 0 <= ground_truth.overlap(a, b) <= 1 + 1e-9
    if Region("", a).area > 0:
        assert ground_truth.overlap(a, a) == pytest.approx(1)


def test_overlap_of_halves():
    assert ground_truth.overlap((0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)) == pytest.approx(0.5)
    assert ground_truth.overlap((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)) == 0


def test_a_region_shows_the_subject_whose_box_it_is(images):
    for truth, regions in zip(ground_truth.ground_truths(images), exact.regions(images), strict=True):
        names = [region.label for region in regions]
        shown = [ground_truth.subject_at(truth, region) for region in regions]
        assert sorted(shown) == list(range(len(names)))
    assert ground_truth.subject_at(truth, Region("", (0.0, 0.0, 0.0, 0.0))) is None


def test_narrowing_keeps_what_is_true(images):
    order = [3, 0, 4]
    for image, truth in zip(images, ground_truth.ground_truths(images), strict=True):
        fewer = annotate.truth_subset(truth, order)
        assert fewer.kinds == tuple(truth.kinds[i] for i in order)
        for i, name, j in fewer.relations:
            back = tuple(sorted(order[n - 1] + 1 for n in j)) if isinstance(j, tuple) else order[j - 1] + 1
            assert (order[i - 1] + 1, name, back) in truth.relations
        kept = [r for r in truth.relations if not isinstance(r[2], tuple) and r[0] - 1 in order and r[2] - 1 in order]
        assert len(kept) == sum(not isinstance(r[2], tuple) for r in fewer.relations)
        scene = ground_truth.scene_subset(image.scene, order)
        assert [s.number for s in scene.subjects] == [1, 2, 3]
        assert [s.kind for s in scene.subjects] == list(fewer.kinds)


def test_between_names_its_two_in_the_order_of_their_new_numbers():
    (truth,) = ground_truth.ground_truths(exact.images(1, subjects=3))
    truth = replace(truth, relations=((2, "between", (1, 3)), (1, "left of", 3)))
    assert annotate.truth_subset(truth, [2, 1, 0]).relations == ((2, "between", (1, 3)), (3, "left of", 1))
    assert annotate.truth_subset(truth, [1, 0]).relations == ()


def test_whoever_stood_on_one_that_leaves_is_put_down():
    crowd = exact.images(30, subjects=6, seed=9)
    stacked = [p.scene for p in crowd if supports_of(p.scene.subjects)]
    assert stacked
    for scene in stacked:
        rider, support = next(iter(supports_of(scene.subjects).items()))
        assert scene.subjects[rider].height > 0
        alone = ground_truth.scene_subset(scene, [rider])
        assert alone.subjects[0].height == 0
        both = ground_truth.scene_subset(scene, [support, rider])
        assert both.subjects[1].height == scene.subjects[rider].height
