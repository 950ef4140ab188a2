"""Stories: the same characters from page to page, text that is true of its image, distractors that are strangers."""

import re
from collections import Counter

import numpy as np
import pytest
from scenes import paint

from macro.scenes import storybook
from macro.scenes.assets.catalog import FIGURES, OBJECTS
from macro.scenes.language.lexicon import ground_words
from macro.scenes.language.prompt_parser import parse_prompt
from macro.scenes.render.batches import render_with_truth
from macro.scenes.similarity import subject_similarity

COLOURS = f"(?:{'|'.join(paint.PAINTS)})"


@pytest.fixture(scope="module")
def tales():
    return [storybook.tale(np.random.default_rng([2, i])) for i in range(24)]


def same(a, b):
    return subject_similarity(a, b) > 0.999


def test_a_tale_follows_from_its_generator(tales):
    assert storybook.tale(np.random.default_rng([2, 5])) == tales[5]
    assert tales[5] != tales[6]


def test_lengths_and_casts(tales):
    assert {len(tale.leaves) for tale in tales} == set(range(4, 12))
    for tale in tales:
        kinds, names = [c.look.kind for c in tale.characters], [c.name for c in tale.characters]
        assert len(set(kinds)) == len(kinds) >= 3 and len(set(names)) == len(names)
        assert set(kinds) <= set(FIGURES)
        assert all(leaf.cast for leaf in tale.leaves)


def test_characters_look_the_same_wherever_they_are(tales):
    for tale in tales:
        for leaf in tale.leaves:
            looks = [tale.characters[who].look for who in leaf.cast]
            assert all(same(look, one) for look, one in zip(looks, leaf.scene.subjects, strict=False))
            others = leaf.scene.subjects[len(leaf.cast) :]
            assert len(others) <= 1 and all(one.kind in OBJECTS for one in others)


def test_everybody_is_new_once(tales):
    for tale in tales:
        known = Counter(who for leaf in tale.leaves for who in leaf.fresh)
        assert set(known.values()) == {1} and set(known) == {who for leaf in tale.leaves for who in leaf.cast}


def test_distractors_show_strangers_and_some_are_doubles(tales):
    doubles = 0
    for tale in tales:
        assert 1 <= len(tale.distractors) <= 3
        for place, scene in tale.distractors:
            assert 1 <= place < len(tale.leaves)
            assert not any(same(c.look, one) for c in tale.characters for one in scene.subjects)
            doubles += any(one.kind == tale.characters[0].look.kind for one in scene.subjects)
    assert doubles > 12


def test_late_pages_can_need_ten_images(tales):
    """How many earlier pages share a character with a page: every number from 1 to 10 comes up."""
    needed = Counter()
    for tale in tales:
        for page, leaf in enumerate(tale.leaves):
            needed[sum(bool(set(leaf.cast) & set(earlier.cast)) for earlier in tale.leaves[:page])] += 1
    assert set(range(1, 11)) <= set(needed)


def test_text_is_true_of_its_image(tales):
    pages = [(tale, page) for tale in tales[:7] for page in range(len(tale.leaves))][:48]  # three whole batches
    scenes, said, things = [tale.leaves[page].scene for tale, page in pages], 0, 0
    for n, ((tale, page), scene, (_, truth)) in enumerate(
        zip(pages, scenes, render_with_truth(scenes, 64, 64, 1), strict=True)
    ):
        text = storybook.text_of(tale, page, truth, np.random.default_rng(n))
        claims = parse_prompt(text, {kind: n for n, kind in enumerate(truth.kinds, 1)})
        assert sorted(claims.mentioned) == list(range(1, len(truth.kinds) + 1)), text
        assert set(claims.relations) <= set(truth.relations), text
        assert claims.ground in (None, ground_words(scene.surroundings))
        said += len(claims.relations)
        for who in tale.leaves[page].fresh:
            look, place = tale.characters[who].look, tale.leaves[page].cast.index(who)
            noun = f"{tale.characters[who].name}, an? ([a-z ]+) {look.kind}\\b"
            words = re.search(noun, text)
            assert words and paint.fits(words[1], truth.albedo, truth.masks[place]), text
        for n in range(len(tale.leaves[page].cast), len(truth.kinds)):  # a thing, in no image before
            words = re.search(rf"\ban? (?:\w+ed )?({COLOURS}(?: and {COLOURS})?) {truth.kinds[n]}\b", text)
            assert words and paint.fits(words[1], truth.albedo, truth.masks[n]), text
            things += 1
    assert len(pages) == 48 and said > 50 and things > 8
