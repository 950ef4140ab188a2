"""MUSIC's layout rule against a slow restatement of the paper; the truth read off hand-made id buffers."""

import itertools

import numpy as np
import pytest

from macro.scenes.assets.catalog import SUPPORTS
from macro.scenes.graph import Camera, Light, Scene, Subject, Surroundings
from macro.scenes.ground_truth import annotate
from macro.scenes.ground_truth.relations import read_relations

SIZE = 32
PATCH = SIZE // 8


def paper_layout(regions, K):
    """The paper's formula, pixel by pixel: regions is a list of sets of pixels (row, column)."""
    patches = {
        (r, c): {(r * PATCH + y, c * PATCH + x) for y in range(PATCH) for x in range(PATCH)}
        for r, c in itertools.product(range(8), range(8))
    }
    iou = [{p: len(b & pixels) / len(b | pixels) for p, pixels in patches.items()} for b in regions]
    grid = np.zeros((8, 8), np.int8)
    for p in patches:
        best = 0.0
        for i, of_subject in enumerate(iou):
            if K == "overlap":
                terms = [v for v in of_subject.values() if v > 0]
            elif K == "all_patches":
                terms = list(of_subject.values())
            else:
                terms = [other[p] for other in iou if other[p] > 0]
            tau = 0.05 * sum(terms) / max(len(terms), 1)
            if of_subject[p] > 0 and of_subject[p] >= tau and of_subject[p] > best:
                best, grid[p] = of_subject[p], i + 1
    return grid


def pixels_of(mask):
    return {(int(y), int(x)) for y, x in np.argwhere(mask)}


def random_masks(rng, subjects):
    """Ragged ellipses that share no pixel, as visible masks do; slivers and an empty one among them."""
    y, x = np.mgrid[:SIZE, :SIZE]
    ids = np.zeros((SIZE, SIZE), int)
    for i in range(subjects):
        cy, cx = rng.uniform(0, SIZE, 2)
        ry, rx = rng.uniform(1, SIZE / 3, 2)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        ids[inside & (rng.random(ids.shape) < 0.9)] = i + 1
    return ids[None] == np.arange(1, subjects + 1)[:, None, None]


@pytest.mark.parametrize("K", annotate.READINGS_OF_K)
def test_layout_is_the_papers_rule_on_masks(K):
    rng = np.random.default_rng(0)
    for subjects in (1, 2, 5, 12):
        for _ in range(4):
            masks = random_masks(rng, subjects)
            expected = paper_layout([pixels_of(m) for m in masks], K)
            np.testing.assert_array_equal(annotate.layout(masks, K=K), expected)


@pytest.mark.parametrize("K", annotate.READINGS_OF_K)
def test_layout_is_the_papers_rule_on_boxes_and_on_a_mixture(K):
    rng = np.random.default_rng(1)
    for _ in range(4):
        masks = random_masks(rng, 4)
        masks = masks[masks.any((1, 2))]
        regions = ["box", "mask", "box", "mask"][: len(masks)]
        filled = []
        for mask, region in zip(masks, regions, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = np.zeros_like(mask)
            box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            filled.append(pixels_of(box if region == "box" else mask))
        np.testing.assert_array_equal(annotate.layout(masks, K=K, region=regions), paper_layout(filled, K))


def test_the_readings_of_k_differ_where_they_should():
    """A sliver of 4% of a patch: below tau of its own patches' mean, above the mean over all 64."""
    masks = np.zeros((1, 80, 80), bool)
    masks[0, :20, :20] = True  # four whole patches: IoU about 1/4 each
    masks[0, 20:22, 0] = True  # and two of the hundred pixels of a fifth
    assert annotate.layout(masks, K="overlap")[2, 0] == 0
    assert annotate.layout(masks, K="all_patches")[2, 0] == 1
    assert annotate.layout(masks, K="subjects_at_patch")[2, 0] == 1


def test_a_subject_that_fills_one_patch_takes_that_patch():
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 16:24, 40:48] = True
    for K, region in itertools.product(annotate.READINGS_OF_K, annotate.REGIONS):
        grid = annotate.layout(masks, K=K, region=region)
        assert grid[2, 5] == 1 and (grid > 0).sum() == 1


def test_two_subjects_on_one_patch_go_by_iou():
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 0:8, 0:5] = True  # 40 of the patch's 64 pixels, and nothing elsewhere: IoU 40/64
    masks[1, 0:8, 5:64] = True  # 24 pixels of it, and much elsewhere
    grid = annotate.layout(masks)
    assert grid[0, 0] == 1 and (grid[0, 1:] == 2).all() and (grid[1:] == 0).all()
    # Of a large and a small subject the small one wins with fewer pixels: its union is smaller.
    masks[0, 0:8, 0:5], masks[0, 0:8, 0:3] = False, True
    masks[1, 0:8, 3:64] = True
    assert annotate.layout(masks)[0, 0] == 1


def test_a_box_claims_corners_that_the_mask_leaves_free():
    masks = np.zeros((1, 64, 64), bool)
    masks[0, np.arange(64), np.arange(64)] = True
    assert (annotate.layout(masks) > 0).sum() == 8
    assert (annotate.layout(masks, region="box") == 1).all()


def test_layout_refuses_what_it_does_not_know():
    masks = np.ones((1, 8, 8), bool)
    with pytest.raises(ValueError, match="K is one of"):
        annotate.layout(masks, K="all")
    with pytest.raises(ValueError, match="region"):
        annotate.layout(masks, region=["mask", "box"])


def block(top, bottom, left, right):
    mask = np.zeros((20, 20), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_relations_of_hand_made_images():
    near = block(10, 18, 0, 6)
    far = block(4, 12, 2, 8)
    aside = block(10, 18, 14, 20)
    visible = np.stack([near, far & ~near, aside])
    found = read_relations(visible, np.stack([near, far, aside]), np.array([3.0, 5.0, 3.0]))
    names = {(i, name, j) for i, name, j in found}
    assert {(0, "left of", 2), (2, "right of", 0), (0, "in front of", 1), (1, "behind", 0)} <= names
    assert {(0, "hides", 1), (0, "far from", 2), (2, "far from", 0)} <= names
    assert not {(1, "hides", 0), (0, "left of", 1), (1, "left of", 0), (0, "behind", 1)} & names
    assert not any(name in ("between", "next to", "on") for _, name, _ in names)


def test_between_next_to_and_on_of_hand_made_images():
    row = np.stack([block(8, 16, 1, 5), block(8, 16, 6, 10), block(8, 16, 12, 16), block(4, 8, 7, 9)])
    found = set(read_relations(row, row, np.array([4.0, 4.0, 4.0, 4.0]), resting=((3, 1),)))
    assert {(1, "between", (0, 2)), (3, "on", 1), (0, "next to", 1), (1, "next to", 0)} <= found
    assert (0, "between", (1, 2)) not in found and (0, "next to", 2) not in found
    # What stands on another is neither beside, before nor between it and others.
    assert {name for i, name, j in found if {i, j} == {1, 3}} == {"on"}
    assert all(not isinstance(j, tuple) or {i, *j} == {0, 1, 2} for i, _, j in found)


def test_an_unseen_subject_has_no_relations():
    masks = np.stack([block(0, 5, 0, 5), np.zeros((20, 20), bool)])
    assert read_relations(masks, np.stack([masks[0], masks[0]]), np.array([3.0, np.inf])) == ()


def toy_scene(*subjects):
    white = (1.0, 1.0, 1.0)
    return Scene(
        subjects, Camera("perspective", (0.0, 1.0, -5.0), (0.0, 0.0, 0.0), 0.7),
        Light(0.0, 1.0, 0.0, 1.0), Surroundings(white, white, "plain", white, white, "open"), 0,
    )  # fmt: skip


def toy(kind, number, height=0.0):
    return Subject(kind, ((1.0, 0.0, 0.0),) * 3, "plain", None, 1.0, (0.0, 0.0), height, 0.0, 0.5, number, 0)


def drawn(ids, amodal, depth):
    albedo = np.zeros((*ids.shape, 3), np.uint8)
    return {"ids": ids, "amodal": amodal, "depth": depth, "albedo": albedo}


def test_truth_of_a_hand_made_buffer():
    ids = np.zeros((20, 20), int)
    amodal = np.stack([block(4, 12, 2, 10), block(8, 16, 6, 14)])
    ids[amodal[0]], ids[amodal[1]] = 1, 2
    depth = np.where(ids == 2, 3.0, np.where(ids == 1, 6.0, 50.0))
    truth = annotate.truth_of(toy_scene(toy("dog", 1), toy("dog", 2)), drawn(ids, amodal, depth))
    np.testing.assert_allclose(truth.boxes, [[0.1, 0.2, 0.5, 0.6], [0.3, 0.4, 0.7, 0.8]])
    np.testing.assert_allclose(truth.visibility, [48 / 64, 1])
    assert truth.depth_order == (2, 1)
    assert (2, "hides", 1) in truth.relations and (2, "in front of", 1) in truth.relations
    assert truth.kinds == ("dog", "dog") and truth.palettes.shape == (2, 3, 3)


def test_on_is_said_in_numbers_and_only_where_the_image_agrees():
    scene = toy_scene(toy("dog", 1, SUPPORTS["table"]), toy("table", 2))
    upper, lower, away = block(2, 8, 6, 12), block(8, 16, 4, 14), block(2, 8, 16, 20)
    for top, expected in ((upper, True), (away, False)):
        ids = np.where(lower, 2, 0) + np.where(top, 1, 0)
        depth = np.where(ids > 0, 4.0, 50.0)
        truth = annotate.truth_of(scene, drawn(ids, np.stack([top, lower]), depth))
        assert ((1, "on", 2) in truth.relations) is expected
