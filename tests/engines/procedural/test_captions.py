"""Words from scene graphs: complete, true, and as the seed says."""

import re

import pytest

from macro.engines.ground_truth import ground_truths, labels
from macro.engines.procedural.captions import caption, describe
from macro.engines.provider import PromptRequest, Region
from macro.scenes.ground_truth.annotate import truth_subset
from macro.sentence.prompt import check_prompt
from macro.utils.errors import ItemError
from tests.engines import exact


@pytest.fixture(scope="module")
def images():
    return exact.images(16, subjects=4, seed=2)


def briefs(images, regions, seed=0):
    return [
        PromptRequest(p, tuple(r), (p,) * len(r), seed + n)
        for n, (p, r) in enumerate(zip(images, regions, strict=True))
    ]


def test_captions_name_everyone_and_no_image(images):
    for image, text in zip(images, caption(images, range(16)), strict=True):
        assert "<image" not in text and "  " not in text
        assert not re.search(r"\ba [aeiou]", text)
        assert all(subject.kind in text for subject in image.scene.subjects)


def test_a_description_names_kind_and_colour(images):
    for image, regions in zip(images, exact.regions(images), strict=True):
        texts = describe([image] * len(regions), regions, range(len(regions)))
        kinds = dict(zip(labels(ground_truths([image])[0]), (s.kind for s in image.scene.subjects), strict=True))
        for text, region in zip(texts, regions, strict=True):
            assert text.endswith(kinds[region.label])
            assert re.match(r"an? \w+ \w+", text)
    assert isinstance(describe(images[:1], [Region("x", (0.0, 0.0, 0.0, 0.0))], [0])[0], ItemError)


def test_instructions_mention_every_image_in_turn(images):
    for brief, prompt in zip(
        briefs(images, exact.regions(images)), exact.provider().instruct(briefs(images, exact.regions(images))),
        strict=True,
    ):  # fmt: skip
        check_prompt(prompt, len(brief.regions))
        mentioned = dict.fromkeys(int(n) for n in re.findall(r"<image (\d+)>", prompt))
        assert list(mentioned) == list(range(1, len(brief.regions) + 1))


def test_instructions_about_some_subjects_leave_out_the_others(images):
    some = [regions[2:0:-1] for regions in exact.regions(images)]
    prompts = exact.provider().instruct(briefs(images, some))
    thoughts = exact.provider().think(briefs(images, some), prompts)
    for image, regions, prompt, thought, truth in zip(
        images, some, prompts, thoughts, ground_truths(images), strict=True
    ):
        kinds = truth_subset(truth, [2, 1]).kinds
        others = {s.kind for s in image.scene.subjects} - set(kinds)
        assert not any(re.search(rf"\b{kind}\b", prompt + thought) for kind in others)
        assert all(kind in thought for kind in kinds)
        assert prompt.count("<image 3>") == 0 and len(regions) == 2


def test_wording_follows_from_the_seed(images):
    regions = exact.regions(images)
    first, again, other = (exact.provider().instruct(briefs(images, regions, seed)) for seed in (0, 0, 100))
    assert first == again != other


def test_wrong_words_swap_two_images(images):
    regions = exact.regions(images)
    right, wrong = (exact.provider(words=rate).instruct(briefs(images, regions)) for rate in (0.0, 1.0))
    for a, b in zip(right, wrong, strict=True):
        assert a != b
        assert set(re.findall(r"<image \d+>", a)) == set(re.findall(r"<image \d+>", b))


def test_two_regions_of_one_subject_are_a_fault(images):
    (regions,) = exact.regions(images[:1])
    (fault,) = exact.provider().instruct(briefs(images[:1], [[regions[0], regions[0]]]))
    assert isinstance(fault, ItemError)
