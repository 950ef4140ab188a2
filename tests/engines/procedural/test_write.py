"""Words from scene graphs: complete, true, and as the seed says."""

import re

import pytest

from macro.engines.known import labels, narrowed_truth, truths
from macro.engines.procedural.write import caption, describe
from macro.engines.stages import Brief, Fault, Region
from macro.sentence.formats import check_prompt
from tests.engines import exact


@pytest.fixture(scope="module")
def pictures():
    return exact.pictures(16, subjects=4, seed=2)


def briefs(pictures, regions, seed=0):
    return [Brief(p, tuple(r), (p,) * len(r), seed + n) for n, (p, r) in enumerate(zip(pictures, regions, strict=True))]


def test_captions_name_everyone_and_no_picture(pictures):
    for picture, text in zip(pictures, caption(pictures, range(16)), strict=True):
        assert "<image" not in text and "  " not in text
        assert not re.search(r"\ba [aeiou]", text)
        assert all(subject.kind in text for subject in picture.scene.subjects)


def test_a_description_names_kind_and_colour(pictures):
    for picture, regions in zip(pictures, exact.regions(pictures), strict=True):
        texts = describe([picture] * len(regions), regions, range(len(regions)))
        kinds = dict(zip(labels(picture.scene), (s.kind for s in picture.scene.subjects), strict=True))
        for text, region in zip(texts, regions, strict=True):
            assert text.endswith(kinds[region.label])
            assert re.match(r"an? \w+ \w+", text)
    assert isinstance(describe(pictures[:1], [Region("x", (0.0, 0.0, 0.0, 0.0))], [0])[0], Fault)


def test_instructions_mention_every_picture_in_turn(pictures):
    for brief, prompt in zip(
        briefs(pictures, exact.regions(pictures)), exact.stages().instruct(briefs(pictures, exact.regions(pictures))),
        strict=True,
    ):  # fmt: skip
        check_prompt(prompt, len(brief.regions))
        mentioned = dict.fromkeys(int(n) for n in re.findall(r"<image (\d+)>", prompt))
        assert list(mentioned) == list(range(1, len(brief.regions) + 1))


def test_instructions_about_some_subjects_leave_out_the_others(pictures):
    some = [regions[2:0:-1] for regions in exact.regions(pictures)]
    prompts = exact.stages().instruct(briefs(pictures, some))
    thoughts = exact.stages().think(briefs(pictures, some), prompts)
    for picture, regions, prompt, thought, truth in zip(
        pictures, some, prompts, thoughts, truths(pictures), strict=True
    ):
        kinds = narrowed_truth(truth, [2, 1]).kinds
        others = {s.kind for s in picture.scene.subjects} - set(kinds)
        assert not any(re.search(rf"\b{kind}\b", prompt + thought) for kind in others)
        assert all(kind in thought for kind in kinds)
        assert prompt.count("<image 3>") == 0 and len(regions) == 2


def test_wording_follows_from_the_seed(pictures):
    regions = exact.regions(pictures)
    first, again, other = (exact.stages().instruct(briefs(pictures, regions, seed)) for seed in (0, 0, 100))
    assert first == again != other


def test_wrong_words_swap_two_pictures(pictures):
    regions = exact.regions(pictures)
    right, wrong = (exact.stages(words=rate).instruct(briefs(pictures, regions)) for rate in (0.0, 1.0))
    for a, b in zip(right, wrong, strict=True):
        assert a != b
        assert set(re.findall(r"<image \d+>", a)) == set(re.findall(r"<image \d+>", b))


def test_two_regions_of_one_subject_are_a_fault(pictures):
    (regions,) = exact.regions(pictures[:1])
    (fault,) = exact.stages().instruct(briefs(pictures[:1], [[regions[0], regions[0]]]))
    assert isinstance(fault, Fault)
