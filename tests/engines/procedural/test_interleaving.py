"""Interleaved captions: every phrase once, every statement holds in the image, whatever things are called."""

import re

import numpy as np
import pytest
from scenes.eye import Eye

from macro.engines.ground_truth import box_of, ground_truths, scene_subset
from macro.engines.material.types import EngineImage
from macro.engines.procedural.captions import describe
from macro.engines.procedural.interleaving import merge, phrases_of
from macro.engines.procedural.material import RenderedMaterial
from macro.engines.procedural.vision import regions_of
from macro.engines.provider import InterleavedCaption, Region
from macro.scenes.ground_truth.annotate import truth_subset
from macro.scenes.language.captions import count_phrase
from macro.scenes.language.lexicon import coloured_nouns
from macro.scenes.language.prompt_parser import names_in_instructions, parse_prompt
from macro.utils.errors import ItemError

COUNT = 12


@pytest.fixture(scope="module")
def images():
    return [RenderedMaterial(64, 1).photo(5, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def regions(images):
    """In another order than the subjects', and now and then not all of them."""
    out = []
    for index, (image, truth) in enumerate(zip(images, ground_truths(images), strict=True)):
        seen = regions_of(truth, [subject.kind for subject in image.scene.subjects])
        order = np.random.default_rng(index).permutation(len(seen))[: max(3, len(seen) - index % 2)]
        out.append([seen[i] for i in order])
    return out


def described(images, regions, seed):
    flat = [(image, region) for image, found in zip(images, regions, strict=True) for region in found]
    texts = iter(describe([p for p, _ in flat], [r for _, r in flat], [seed + i for i in range(len(flat))]))
    return [[next(texts) for _ in found] for found in regions]


@pytest.mark.parametrize("seed", [0, 100])
def test_every_phrase_stands_once_and_every_statement_holds(images, regions, seed):
    told = statements = 0
    descriptions = described(images, regions, seed)
    merged = merge(images, [""] * COUNT, regions, descriptions, [seed + i for i in range(COUNT)])
    for image, found, texts, answer in zip(images, regions, descriptions, merged, strict=True):
        assert isinstance(answer, InterleavedCaption)
        assert list(answer.phrases.values()) == list(range(1, len(found) + 1))
        assert [phrase for phrase in answer.phrases] == [re.sub("^(an|a) ", "", text) for text in texts]
        assert all(count_phrase(answer.caption, phrase) == 1 for phrase in answer.phrases)
        kinds = [region.label for region in found]
        scene, truth = _as_regions_go(image, found)
        prompt = answer.caption
        for phrase, n in [*answer.phrases.items(), *zip(coloured_nouns(truth), range(1, len(found) + 1), strict=True)]:
            prompt = re.sub(rf"\b{phrase}\b", f"<image {n}> {kinds[n - 1]}", prompt)
        claims = parse_prompt(prompt, names_in_instructions(truth))
        said = claims.relations
        assert sorted(claims.mentioned) == list(range(1, len(found) + 1))
        eye = Eye(scene, truth)
        assert all(eye.sees(*statement) for statement in said if statement[1] != "on"), prompt
        statements, told = statements + len(said), told + len(found)
    assert statements > 0.5 * told


def _as_regions_go(image, found):
    """Scene and truth with subjects in the order of the regions, found by their boxes."""
    (truth,) = ground_truths([image])
    boxes = [box_of(truth, i) for i in range(len(truth.kinds))]
    order = [boxes.index(region.box) for region in found]
    return scene_subset(image.scene, order), truth_subset(truth, order)


def test_the_same_seed_says_the_same(images, regions):
    descriptions = described(images, regions, 0)
    first, second, other = (merge(images, [""] * COUNT, regions, descriptions, [seed] * COUNT) for seed in (1, 1, 2))
    assert first == second and first != other
    assert merge(images[3:4], [""], regions[3:4], descriptions[3:4], [1]) == first[3:4]


@pytest.mark.parametrize(
    ("descriptions", "phrases"),
    [
        (["a red dog", "an owl", "the old house"], ["red dog", "owl", "old house"]),
        (["a red dog", "a red  dog", "a dog"], ["first red dog", "second red dog", "first dog"]),
        (["a dog house", "the dog"], ["dog house", "first dog"]),
        (["a dogfish", "a dog"], ["dogfish", "dog"]),
        (["anthill"], ["anthill"]),
    ],
)
def test_phrases_have_no_article_and_are_no_part_of_each_other(descriptions, phrases):
    assert phrases_of(descriptions) == phrases


def test_things_described_alike_are_told_apart(images, regions):
    (answer,) = merge(images[:1], [""], regions[:1], [["a thing"] * len(regions[0])], [0])
    assert list(answer.phrases)[:3] == ["first thing", "second thing", "third thing"]
    assert all(count_phrase(answer.caption, phrase) == 1 for phrase in answer.phrases)


def test_what_cannot_be_told_is_a_fault(images, regions):
    box = regions[0][0].box
    doubled = [Region("one", box), Region("another", box)]
    unknown = EngineImage(images[0].pixels)
    same, empty, unclear, strange = merge(
        [*images[:1] * 3, unknown],
        [""] * 4,
        [doubled, *[regions[0][:1]] * 3],
        [["a dog", "a cat"], [" "], ["is"], ["a dog"]],
        [0] * 4,
    )
    assert isinstance(same, ItemError) and "no subject of its own" in same.reason
    assert isinstance(empty, ItemError) and "no description" in empty.reason
    assert isinstance(unclear, ItemError) and "does not stand exactly once" in unclear.reason
    assert isinstance(strange, ItemError) and "not known" in strange.reason
