"""Truth of rendered pictures, and truth about some of their subjects."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.engines import known
from macro.engines.stages import Region
from macro.scenes.ground_truth import annotate
from macro.scenes.layout.placement import supports_of
from tests.engines import exact

BOX = st.tuples(*[st.integers(0, 8)] * 4).map(lambda b: tuple(float(edge) / 8 for edge in b))


@pytest.fixture(scope="module")
def pictures():
    return exact.pictures(6, subjects=5)


def test_truth_is_that_of_the_rendered_scene_whatever_it_is_asked_with(pictures):
    together = known.truths(pictures)
    assert [len(truth.kinds) for truth in together] == [5] * 6
    assert known.truths(pictures[2:3]) == [together[2]]
    assert known.truths(pictures[::-1])[0] == together[-1]
    for truth in together:
        np.testing.assert_array_equal(truth.boxes, annotate.tight_boxes(truth.masks))


def test_labels_tell_subjects_apart(pictures):
    for picture in exact.pictures(12, subjects=9, seed=5):
        names = known.labels(picture.scene)
        assert len(set(names)) == len(names)
        assert all(subject.kind in name for subject, name in zip(picture.scene.subjects, names, strict=True))


@settings(max_examples=60, deadline=None)
@given(BOX, BOX)
def test_overlap_is_symmetric_and_one_for_itself(a, b):
    assert known.overlap(a, b) == known.overlap(b, a)
    assert 0 <= known.overlap(a, b) <= 1 + 1e-9
    if Region("", a).area > 0:
        assert known.overlap(a, a) == pytest.approx(1)


def test_overlap_of_halves():
    assert known.overlap((0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)) == pytest.approx(0.5)
    assert known.overlap((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)) == 0


def test_a_region_shows_the_subject_whose_box_it_is(pictures):
    for truth, regions in zip(known.truths(pictures), exact.regions(pictures), strict=True):
        names = [region.label for region in regions]
        shown = [known.subject_at(truth, region) for region in regions]
        assert sorted(shown) == list(range(len(names)))
    assert known.subject_at(truth, Region("", (0.0, 0.0, 0.0, 0.0))) is None


def test_narrowing_keeps_what_is_true(pictures):
    order = [3, 0, 4]
    for picture, truth in zip(pictures, known.truths(pictures), strict=True):
        fewer = known.narrowed_truth(truth, order)
        assert fewer.kinds == tuple(truth.kinds[i] for i in order)
        for i, name, j in fewer.relations:
            back = tuple(sorted(order[n - 1] + 1 for n in j)) if isinstance(j, tuple) else order[j - 1] + 1
            assert (order[i - 1] + 1, name, back) in truth.relations
        kept = [r for r in truth.relations if not isinstance(r[2], tuple) and r[0] - 1 in order and r[2] - 1 in order]
        assert len(kept) == sum(not isinstance(r[2], tuple) for r in fewer.relations)
        scene = known.narrowed(picture.scene, order)
        assert [s.number for s in scene.subjects] == [1, 2, 3]
        assert [s.kind for s in scene.subjects] == list(fewer.kinds)


def test_between_names_its_two_in_the_order_of_their_new_numbers():
    (truth,) = known.truths(exact.pictures(1, subjects=3))
    truth = replace(truth, relations=((2, "between", (1, 3)), (1, "left of", 3)))
    assert known.narrowed_truth(truth, [2, 1, 0]).relations == ((2, "between", (1, 3)), (3, "left of", 1))
    assert known.narrowed_truth(truth, [1, 0]).relations == ()


def test_whoever_stood_on_one_that_leaves_is_put_down():
    crowd = exact.pictures(30, subjects=6, seed=9)
    stacked = [p.scene for p in crowd if supports_of(p.scene.subjects)]
    assert stacked
    for scene in stacked:
        rider, support = next(iter(supports_of(scene.subjects).items()))
        assert scene.subjects[rider].height > 0
        alone = known.narrowed(scene, [rider])
        assert alone.subjects[0].height == 0
        both = known.narrowed(scene, [support, rider])
        assert both.subjects[1].height == scene.subjects[rider].height
