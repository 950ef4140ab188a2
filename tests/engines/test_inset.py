"""INSET's engine: images stand before their phrases, are cut from what they show, and read back from files."""

import re
from dataclasses import replace

import numpy as np
import pytest
from engines.videos import SIZE, ToyMaterial, doing, frames, scene_of

from macro.engines import core, inset, procedural
from macro.engines.ground_truth import ground_truths, overlap
from macro.engines.inset.regions import cut_out
from macro.engines.inset.video import far_apart
from macro.engines.material.types import VideoClip
from macro.engines.provider import InterleavedCaption, Region
from macro.scenes.ground_truth import annotate
from macro.sentence.formats import load_images, read
from macro.sentence.formats.macrodata import write_macrodata
from macro.sentence.prompt import arrange, images_by_number, prompt_of
from macro.sentence.spans import Image, Target, Text
from macro.utils.errors import ItemError, UserError

OPTIONS = inset.Options(reference_size=32, areas=(0.005, 0.6), video=0.5)
IMAGES = replace(OPTIONS, video=0.0)
COUNT = 12


def known(noise=None):
    """The procedural provider with our material."""
    exact = procedural.provider(procedural.Options(SIZE, 1, noise or procedural.Noise()))
    return exact.replace(sources=ToyMaterial())


@pytest.fixture(scope="module")
def provider():
    return known()


def make(provider, options=OPTIONS, indices=range(COUNT)):
    return core.make(inset.ENGINE, provider, options, 3, indices)


@pytest.fixture(scope="module")
def made(provider):
    return make(provider)


def of_branch(samples, branch):
    chosen = [sample for sample in samples if sample.notes["bucket"] == branch]
    assert len(chosen) > 2
    return chosen


def test_images_stand_right_before_the_phrases_that_they_show(made):
    for sample in made.samples:
        spans, phrases = sample.spans, sample.notes["phrases"]
        assert sample.task == "compose" and isinstance(spans[-1], Target) and sample.plan is None
        assert [image.number for image in sample.images] == list(range(1, len(phrases) + 1))
        for image, words in zip(spans, spans[1:], strict=False):
            if isinstance(image, Image):
                assert image.subject == image.number == phrases[image.phrase]
                assert isinstance(words, Text) and words.text.startswith(f" {image.phrase}")
                assert image.pixels.shape == (32, 32, 3)


def test_images_have_three_to_eight_references_of_things_in_the_target(made):
    for sample in of_branch(made.samples, "image"):
        assert 3 <= len(sample.images) <= 8
        truth = sample.truth
        for image, kind, region in zip(sample.images, truth.kinds, sample.notes["regions"], strict=False):
            assert image.phrase.endswith(kind) and region["label"].endswith(kind)
            mask = truth.masks[image.subject - 1]
            np.testing.assert_array_equal(image.pixels, cut_out(sample.target.pixels, mask, OPTIONS))
        assert truth.questions


def test_videos_show_things_as_they_were_and_draw_them_as_they_are(made, provider):
    for sample in of_branch(made.samples, "video"):
        assert sample.notes["seconds"] in ([0.0, 4.0], [1.0, 4.0])
        still = next(v for v in sample.notes["verdicts"] if v["filter"] == "stillness")
        assert still["value"] <= OPTIONS.stillest
        kinds = [kind.split()[-1] for kind in sample.truth.kinds[: len(sample.images)]]
        assert [image.phrase.split()[-1] for image in sample.images] == kinds
    first = next(sample for sample in of_branch(made.samples, "video") if sample.notes["attempt"] == 0)
    source = ToyMaterial().clip(3, inset.start(3, first.idx, 0, OPTIONS).rank).frames[0]
    (then,) = ground_truths([source])
    for image, kind in zip(first.images, first.truth.kinds, strict=False):
        mask = then.masks[then.kinds.index(kind)]
        np.testing.assert_array_equal(image.pixels, cut_out(source.pixels, mask, OPTIONS))


def test_branches_keep_their_share_and_the_dead_say_why(made):
    reasons = {(dead.bucket, dead.step): dead.reason for dead in made.dead}
    for (bucket, step), reason in reasons.items():
        assert bucket == "video" and step in ("pair", "stillness"), (bucket, step)
        assert ("is broken" in reason) if step == "pair" else ("stands still" in reason)
    assert made.counts["phrases", "kept"] == len(made.samples)
    first = [inset.ENGINE.start(3, index, 0, OPTIONS).bucket for index in range(200)]
    later = [inset.ENGINE.start(3, index, 2, OPTIONS).bucket for index in range(200)]
    assert first == later and 70 < first.count("video") < 130


def test_a_sample_is_the_same_alone_and_in_a_batch(made, provider):
    for place in (0, len(made.samples) - 1):
        index = made.samples[place].idx
        assert make(provider, indices=[index]).samples == [made.samples[place]]


def test_samples_are_read_back_from_their_files(made, tmp_path):
    for sample in made.samples:
        path = tmp_path / f"{sample.idx}.json"
        write_macrodata(path, sample)
        back = load_images(read(path))
        assert prompt_of(back) == prompt_of(sample)
        for ours, theirs in zip(sample, back, strict=True):
            assert type(ours) is type(theirs)
            if isinstance(ours, Text):
                assert ours == theirs
            else:
                np.testing.assert_array_equal(ours.pixels, theirs.pixels)
            if isinstance(ours, Image):
                assert (ours.number, ours.subject) == (theirs.number, theirs.subject)


def test_both_arrangements_come_from_one_sample(made):
    for sample in made.samples:
        first = arrange(sample, "image_first")
        assert first.spans[0] == Text("<image 1>") and prompt_of(first) == prompt_of(sample)
        assert arrange(first, "in_sentence") == sample


def test_a_plan_can_be_asked_for(provider):
    options = replace(OPTIONS, plan=True)
    made = make(provider, options)
    for branch in ("image", "video"):
        for sample in of_branch(made.samples, branch):
            np.testing.assert_array_equal(sample.plan.grid, annotate.layout(sample.truth.masks[: len(sample.images)]))
            assert all(kind in sample.plan.cot for kind in sample.truth.kinds[: len(sample.images)])


def test_noise_spoils_samples_and_not_their_truth(provider):
    noisy = make(known(procedural.Noise(missed=0.3, swapped=0.5, boxes=0.05, masks=0.2)), IMAGES, range(8))
    clean = {sample.idx: sample for sample in make(provider, IMAGES, range(8)).samples}
    assert noisy.counts["sizes", "dropped"] > 0
    fewer = 0
    for sample in noisy.samples:
        if sample.notes["attempt"] or clean[sample.idx].notes["attempt"]:
            continue
        true = clean[sample.idx].truth
        fewer += len(sample.images) < len(clean[sample.idx].images)
        assert sorted(sample.truth.kinds) == sorted(true.kinds)  # the image is the same
        for kind, palette, mask in zip(sample.truth.kinds, sample.truth.palettes, sample.truth.masks, strict=True):
            places = [i for i, name in enumerate(true.kinds) if name == kind and (true.palettes[i] == palette).all()]
            np.testing.assert_array_equal(mask, true.masks[places[0]])
    assert fewer > 0


# ---- filters ----


def photos_of(scene):
    """Material whose every photo is of one scene."""

    class One(ToyMaterial):
        def photo(self, seed, index):
            return frames(scene)[0]

    return One()


SCENE = scene_of(2, 5, ("robot", "tree", "car", "house", "dog"))


def judged(sample):
    return {each["label"]: each["reason"] for each in sample.notes["judged"] if each["filter"] == "sizes"}


def test_extreme_sizes_leave_and_the_notes_say_so(provider):
    tiny = doing(SCENE, 1, scale=SCENE.subjects[1].scale * 0.3)
    provider = provider.replace(sources=photos_of(tiny))
    (sample,) = make(provider, replace(IMAGES, areas=(0.01, 0.5)), [0]).samples
    assert judged(sample)["tree"].startswith("too small")
    assert "tree" not in prompt_of(sample) and len(sample.images) == 4
    (sample,) = make(provider, replace(IMAGES, references=(2, 3)), [0]).samples
    reasons = judged(sample)
    assert sum(reason == "not among the 3 largest" for reason in reasons.values()) == 2 - ("too" in reasons["tree"])
    areas = {each["label"]: Region("", tuple(each["box"])).area for each in sample.notes["judged"]}
    kept = {label for label, reason in reasons.items() if not reason}
    assert min(areas[label] for label in kept) >= max(areas[label] for label in set(areas) - kept)


def test_too_few_things_drop_the_candidate(provider):
    provider = provider.replace(sources=photos_of(scene_of(2, 2)))
    made = make(provider, IMAGES, [0])
    assert not made.samples and len(made.dead) == inset.ENGINE.max_attempts
    assert made.dead[0].step == "sizes" and made.dead[0].reason == "2 left of at least 3"


def test_a_thing_found_twice_is_shown_once(provider):
    def twice(images, labels):
        return [[*found, replace(found[0], label="gadget")] for found in provider.detect(images, labels)]

    (sample,) = make(provider.replace(sources=photos_of(SCENE), detect=twice), IMAGES, [0]).samples
    assert judged(sample)["gadget"] == "found before by another name"
    boxes = [region["box"] for region in sample.notes["regions"]]
    assert all(overlap(tuple(a), tuple(b)) < 0.7 for i, a in enumerate(boxes) for b in boxes[:i])


def test_things_without_a_mask_leave(provider):
    def blind(images, regions):
        masks = provider.segment(images, regions)
        return [[np.zeros_like(m) if r.label == "car" else m for m, r in zip(*both, strict=True)]
                for both in zip(masks, regions, strict=True)]  # fmt: skip

    (sample,) = make(provider.replace(sources=photos_of(SCENE), segment=blind), IMAGES, [0]).samples
    assert {"filter": "masks", "label": "car"}.items() <= next(
        each for each in sample.notes["judged"] if each["filter"] == "masks" and not each["kept"]
    ).items()
    assert sample.truth.kinds.index("car") >= len(sample.images) and "car" not in prompt_of(sample)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (InterleavedCaption("a robot and a tree.", {"robot": 1, "trees": 2}), "'trees', which has no place of its own"),
        (InterleavedCaption("a robot and a tree.", {"robot": 1, "tree": 9}), "'tree' to image 9"),
        (InterleavedCaption("a robot and a tree.", {"robot": 1, "tree": 1}), "two phrases to one image"),
        (InterleavedCaption("a <image 1> robot.", {"robot": 1}), "holds an <image n> marker"),
        (InterleavedCaption("", {}), "is empty"),
        (InterleavedCaption("a robot and a tree.", {"robot": 1, "tree": 2}), "2 left of at least 3"),
        (ItemError("an answer without the field 'caption'"), "without the field"),
    ],
)
def test_a_bad_answer_drops_the_candidate_with_its_reason(provider, told, reason):
    provider = provider.replace(sources=photos_of(SCENE), merge=lambda *asked: [told])
    made = make(provider, IMAGES, [0])
    assert not made.samples and reason in made.dead[0].reason
    assert made.dead[0].step == ("merge" if isinstance(told, ItemError) else "phrases")


def test_what_the_caption_leaves_out_leaves_and_the_rest_is_renumbered(provider):
    told = InterleavedCaption("a dog, a house and a car.", {"dog": 5, "car": 3, "house": 4})
    seen = [subject.kind for subject in SCENE.subjects]
    (sample,) = make(provider.replace(sources=photos_of(SCENE), merge=lambda *asked: [told]), IMAGES, [0]).samples
    assert prompt_of(sample) == "a <image 1> dog, a <image 2> house and a <image 3> car."
    assert sample.truth.kinds[:3] == tuple(seen[n - 1] for n in (5, 4, 3))
    assert sorted(sample.truth.kinds) == sorted(seen)
    assert [image.number for image in images_by_number(sample)] == [1, 2, 3]


def test_frames_of_a_pair_are_far_apart():
    clip = VideoClip(tuple(frames(SCENE)) * 5, (0.0, 1.0, 2.0, 3.0, 10.0))
    assert far_apart(clip, 0.5) == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert far_apart(clip, 0.0) == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    assert far_apart(VideoClip(tuple(frames(SCENE)), (0.0,)), 0.5) == far_apart(VideoClip((), ()), 0.5) == []


def test_a_pair_without_real_change_is_dropped(provider):
    class Panned(ToyMaterial):
        def clip(self, seed, index):
            panned = replace(SCENE, camera=replace(SCENE.camera, target=(0.2, 0.35, 0.0)))
            return VideoClip(tuple(frames(SCENE, panned)), (0.0, 1.0))

    made = make(provider.replace(sources=Panned()), replace(OPTIONS, video=1.0), [0])
    assert not made.samples and {dead.step for dead in made.dead} == {"changed"}


# ---- cut-outs, options ----


def test_a_cut_out_is_the_masked_part_on_plain_ground():
    pixels = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
    mask = np.zeros((20, 30), bool)
    mask[4:14, 6:11] = True
    mask[4, 6] = False
    options = inset.Options(reference_size=12, margin=0.1, ground=(1, 2, 3))
    out = cut_out(pixels, mask, options)  # 10 x 5 pixels with a margin of 1: 12 x 12, nothing is resized
    inside = np.zeros((12, 12), bool)
    inside[1:11, 3:8] = True
    inside[1, 3] = False
    np.testing.assert_array_equal(out[inside], pixels[mask])
    assert (out[~inside] == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"video": 1.5}, "video=1.5"), ({"stillest": -0.1}, "stillest=-0.1"), ({"references": (5, 3)}, "references"),
        ({"references": (0, 3)}, "references"), ({"entities": (1, 13)}, "entities"), ({"areas": (0.5, 0.1)}, "areas"),
        ({"reference_size": 0}, "reference_size"), ({"margin": -1.0}, "margin"), ({"ground": (0, 0, 256)}, "ground"),
    ],
)  # fmt: skip
def test_options_are_checked(changes, says):
    with pytest.raises(UserError, match=re.escape(f"inset options: {says}")):
        replace(inset.Options(), **changes)
