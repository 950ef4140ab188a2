"""Grounding DINO through its real class, on a tiny one of random weights; its rules of choice on cases by hand."""

import numpy as np
import pytest
from tiny_vision import noise

from macro.engines.foundation.detector import GroundingDino, _words, chosen
from macro.engines.ground_truth import overlap
from macro.engines.material.types import EngineImage
from macro.utils.errors import ItemError, UserError

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

IMAGES = [EngineImage(noise(i, *size)) for i, size in enumerate([(64, 64), (48, 90), (64, 64), (64, 64), (90, 48)])]
LABELS = [["a red dog", "house"], ["tree"], ["house", "a red dog", "house"], ["dogs", "blue house", "tree"], []]


def everything(tiny, **options) -> GroundingDino:
    """A detector that takes whatever its random weights see."""
    return GroundingDino(tiny("grounding_dino"), **({"box_threshold": 0.0, "text_threshold": 0.0} | options))


# ---- the choice of regions ----

LEFT, NEAR_LEFT, RIGHT = (0.25, 0.5, 0.4, 0.4), (0.26, 0.5, 0.4, 0.4), (0.75, 0.5, 0.4, 0.4)


def picked(scores, boxes, names, labels, threshold=0.25, most=0.7):
    regions = chosen(np.array(scores), np.array(boxes), names, labels, threshold, most)
    return [(r.label, round(r.box[0] + r.box[2], 3) / 2, r.score) for r in regions]


def test_a_label_gets_its_best_box_and_the_surest_comes_first():
    scores = [[0.6, 0.1], [0.5, 0.1], [0.2, 0.9]]
    assert picked(scores, [LEFT, (0.5, 0.1, 0.1, 0.1), RIGHT], ["dog", "cat"], ["dog", "cat"]) == [
        ("cat", 0.75, 0.9),
        ("dog", 0.25, 0.6),
    ]


def test_a_label_that_stands_twice_gets_two_regions_that_are_not_the_same_thing():
    scores = [[0.9], [0.8], [0.4]]
    boxes = [LEFT, NEAR_LEFT, RIGHT]
    assert picked(scores, boxes, ["dog"], ["dog"]) == [("dog", 0.25, 0.9)]
    assert picked(scores, boxes, ["dog"], ["dog", "dog"]) == [("dog", 0.25, 0.9), ("dog", 0.75, 0.4)]
    # The near one overlaps by .95: with that allowed it is the second.
    assert picked(scores, boxes, ["dog"], ["dog", "dog"], most=0.96) == [("dog", 0.25, 0.9), ("dog", 0.26, 0.8)]
    # Spelt in two ways it is still one name, and both come back as they were asked for.
    assert [r[0] for r in picked(scores, boxes, ["dog"], ["Dog", "dog."])] == ["Dog", "dog."]


def test_two_labels_do_not_share_a_thing():
    scores = [[0.9, 0.8], [0.1, 0.6], [0.0, 0.3]]
    assert picked(scores, [LEFT, NEAR_LEFT, RIGHT], ["dog", "puppy"], ["dog", "puppy"]) == [
        ("dog", 0.25, 0.9),
        ("puppy", 0.75, 0.3),
    ]


def test_unsure_and_empty_boxes_are_no_regions():
    boxes = [LEFT, RIGHT, (0.5, 0.5, 0.0, 0.2), (1.5, 0.5, 0.2, 0.2)]
    assert picked([[0.24], [0.1], [0.9], [0.9]], boxes, ["dog"], ["dog"]) == []
    assert picked([[0.24], [0.26], [0.9], [0.9]], boxes, ["dog"], ["dog", "dog"]) == [("dog", 0.75, 0.26)]


def test_boxes_end_at_the_image():
    [region] = chosen(np.array([[0.9]]), np.array([[0.1, 0.9, 0.4, 0.4]]), ["dog"], ["dog"], 0.2, 0.7)
    assert region.box == pytest.approx((0.0, 0.7, 0.3, 1.0))


# ---- the model ----


def test_scores_and_boxes_are_the_models_for_the_labels_own_words(tiny):
    """By hand from the model's output: the place of each word in "a red dog. house." is known."""
    from transformers import AutoProcessor, GroundingDinoForObjectDetection

    path = tiny("grounding_dino")
    model, processor = GroundingDinoForObjectDetection.from_pretrained(path).eval(), AutoProcessor.from_pretrained(path)
    inputs = processor(images=IMAGES[0].pixels, text="a red dog. house.", return_tensors="pt")
    words = _words(inputs["input_ids"].numpy(), processor.tokenizer)
    np.testing.assert_array_equal(words, [[-1, 0, 0, 0, -1, 1, -1, -1]])
    with torch.inference_mode():
        outputs = model(**inputs)
    scores = outputs.logits[0].sigmoid()
    by_label = {"a red dog": scores[:, 1:4].max(1).values.numpy(), "house": scores[:, 5].numpy()}
    [regions] = everything(tiny)(IMAGES[:1], LABELS[:1])
    assert {r.label for r in regions} == set(by_label)
    for region in regions:
        query = int(np.argmin(np.abs(by_label[region.label] - region.score)))
        assert by_label[region.label][query] == pytest.approx(region.score, abs=1e-5)
        x, y, w, h = outputs.pred_boxes[0, query].tolist()
        expected = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, 1)
        np.testing.assert_allclose(region.box, expected, atol=1e-4)
    # The surest of all is its label's best query.
    assert regions[0].score == pytest.approx(max(map(np.max, by_label.values())), abs=1e-6)


def test_a_batch_is_as_many_singles_in_order(tiny):
    def flat(found):
        return [[(r.label, *np.round(r.box, 4), round(r.score, 4)) for r in regions] for regions in found]

    together = flat(everything(tiny, batch=3)(IMAGES, LABELS))
    singles = [flat(everything(tiny)([p], [names]))[0] for p, names in zip(IMAGES, LABELS, strict=True)]
    assert together == singles
    assert [len(regions) for regions in together] == [2, 1, 3, 3, 0]
    assert together[0][0][1:] != together[3][0][1:]


def test_the_same_label_twice_is_two_places(tiny):
    detector = everything(tiny, overlap=0.0)
    [regions] = detector([IMAGES[2]], [["house", "house", "tree", "house"]])
    assert sorted(r.label for r in regions) == ["house", "house", "house", "tree"]
    assert all(overlap(a.box, b.box) == 0 for i, a in enumerate(regions) for b in regions[:i])
    assert [r.score for r in regions] == sorted((r.score for r in regions), reverse=True)


def test_thresholds_leave_labels_out(tiny):
    [regions] = everything(tiny)(IMAGES[:1], LABELS[:1])
    between = sum(r.score for r in regions) / 2
    [surer] = everything(tiny, text_threshold=between)(IMAGES[:1], LABELS[:1])
    assert [r.label for r in surer] == [regions[0].label]
    assert everything(tiny, box_threshold=1.0)(IMAGES[:1], LABELS[:1]) == [[]]
    assert everything(tiny)(IMAGES[:1], [["?", ".", " "]]) == [[]]


def test_one_prompt_too_long_is_one_fault(tiny):
    long = ["a red dog", *(f"tree {'a ' * i}" for i in range(12))]
    found = everything(tiny)([IMAGES[0], IMAGES[2]], [long, ["house"]])
    assert isinstance(found[0], ItemError) and "longer than the 32 tokens" in found[0].reason
    assert [r.label for r in found[1]] == ["house"]


def test_another_models_folder_is_refused(tiny):
    with pytest.raises(UserError, match="Grounding DINO: .* a model of type sam2"):
        GroundingDino(tiny("sam2"))(IMAGES[:1], LABELS[:1])
