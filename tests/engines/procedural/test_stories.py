"""Stories as pages, and pages as instructions: who is needed is kept, strangers are not."""

import pickle
import re

import numpy as np
import pytest

from macro.engines.material.types import EngineImage, Lazy
from macro.engines.procedural import stories
from macro.engines.procedural.material import RenderedMaterial
from macro.utils.errors import ItemError

STORIES = RenderedMaterial(32, 1)


@pytest.fixture(scope="module")
def told():
    return [STORIES.story(1, n) for n in range(4)]


def before(tale, page):
    """(image, characters) of all that stands before a page; distractors have none."""
    out = []
    for place in range(page + 1):
        out += [(image, ()) for at, image in tale.distractors if at == place]
        out += [(tale.pages[place].image, tale.pages[place].characters)] if place < page else []
    return out


def rewritten(tale, page, seed=0):
    images = [image for image, _ in before(tale, page)]
    target = tale.pages[page]
    return stories.rewrite([[""] * len(images)], [images], [target.text], [target.image], [seed])[0]


def test_a_story_follows_from_seed_and_index(told):
    again = STORIES.story(1, 2)
    assert [page.text for page in again.pages] == [page.text for page in told[2].pages]
    for one, other in zip(again.pages, told[2].pages, strict=True):
        np.testing.assert_array_equal(one.image.pixels, other.image.pixels)
    assert STORIES.story(2, 2).pages[0].text != told[2].pages[0].text


def test_those_kept_are_those_with_a_character_of_the_page(told):
    counts = set()
    for tale in told:
        for page in range(1, len(tale.pages)):
            cast = set(tale.pages[page].characters)
            wanted = tuple(n for n, (_, who) in enumerate(before(tale, page)) if cast & set(who))
            answer = rewritten(tale, page)
            assert answer.kept == wanted
            named = [int(n) for n in re.findall(r"<image (\d+)>", answer.text)]
            assert set(named) == set(range(1, len(wanted) + 1))
            counts.add(len(wanted))
    assert len(counts) > 4


def test_only_markers_are_added(told):
    tale = told[0]
    answer = rewritten(tale, len(tale.pages) - 1)
    bare = re.sub(r" of <image \d+>(?:(?:,| and) <image \d+>)*", "", answer.text)
    assert bare.endswith(tale.pages[-1].text) and bare != answer.text


def test_an_image_names_whom_it_shows(told):
    for tale in told:
        page = len(tale.pages) - 1
        answer, images = rewritten(tale, page), [image for image, _ in before(tale, page)]
        for kind, markers in re.findall(r"(\w+) of (<image \d+>(?:(?:,| and) <image \d+>)*)", answer.text):
            for number in re.findall(r"\d+", markers):
                scene = images[answer.kept[int(number) - 1]].scene
                subject = next(s for s in tale.pages[page].image.scene.subjects if s.kind == kind)
                assert stories.is_in(subject, scene)


def test_unknown_images_are_a_fault(told):
    blank = EngineImage(np.zeros((8, 8, 3), np.uint8))
    answer = stories.rewrite([[""]], [[blank]], ["a dog."], [told[0].pages[0].image], [0])[0]
    assert isinstance(answer, ItemError) and "scene is not known" in answer.reason


def test_who_is_on_a_page_is_known_before_it_is_drawn(told):
    for tale in told:
        assert [tale.cast(page) for page in range(len(tale.pages))] == [page.characters for page in tale.pages]
    looked: list[int] = []
    later = Lazy(3, lambda places: looked.append(1) or {0: 4, 1: 5, 2: 6})
    assert len(later) == 3 and not looked
    assert list(later) == [4, 5, 6] and later[1:] == [5, 6] and looked == [1]


def test_a_story_goes_to_other_processes_before_and_after_it_is_looked_at():
    fresh, read = (STORIES.story(3, 1) for _ in range(2))
    assert len(read.pages[0].text) > 0
    for sent in (pickle.loads(pickle.dumps(fresh)), pickle.loads(pickle.dumps(read))):
        assert [page.text for page in sent.pages] == [page.text for page in read.pages]
        assert [place for place, _ in sent.distractors] == [place for place, _ in read.distractors]
