"""Stories from JSON in both forms, and everything that can be wrong with them."""

import json
import os

import numpy as np
import pytest

from macro.engines.material import FolderMaterial, Options, documents
from macro.utils import images as image_io
from macro.utils.errors import ItemError


@pytest.fixture
def folder(tmp_path):
    """A folder of stories with images 0.png .. 7.png; image n is all n."""
    for n in range(8):
        image_io.save(tmp_path / f"stories/images/{n}.png", np.full((10, 20, 3), n, np.uint8))
    image_io.save(tmp_path / "secret.png", np.zeros((4, 4, 3), np.uint8))
    return tmp_path


def told(folder, record, **options):
    """The story that a record, or any text, comes out as."""
    text = record if isinstance(record, str) else json.dumps(record)
    (folder / "stories/tale.json").write_text(text)
    return FolderMaterial(folder, Options(**options)).story(0, 0)


def number_of(image):
    return int(image.pixels[0, 0, 0])


def file(n):
    return f"images/{n}.png"


PAGES = [
    {"text": " Ann finds a hat. ", "image": file(0), "characters": ["Ann"]},
    {"text": "She puts it on.", "image": file(1)},
    {"text": "Bob laughs.", "image": file(2), "characters": ["Ann", "Bob"]},
]


def test_pages_come_in_order_with_their_images(folder):
    record = {"title": "The hat", "pages": PAGES, "distractors": [{"before": 2, "image": file(7)}]}
    story = told(folder, record)
    assert story.title == "The hat"
    assert [page.text for page in story.pages] == ["Ann finds a hat.", "She puts it on.", "Bob laughs."]
    assert [number_of(page.image) for page in story.pages] == [0, 1, 2]
    assert [page.characters for page in story.pages] == [("Ann",), (), ("Ann", "Bob")]
    assert [(place, number_of(image)) for place, image in story.distractors] == [(2, 7)]


def test_what_may_be_missing_may(folder):
    story = told(folder, {"pages": PAGES[:2]})
    assert story.title == "tale" and not story.distractors


def test_long_stories_end_early_and_large_images_are_scaled(folder):
    long = {"pages": PAGES * 10, "distractors": [{"before": 3, "image": file(5)}, {"before": 29, "image": file(6)}]}
    story = told(folder, long, longest=10)
    assert len(story.pages) == documents.PAGES
    assert story.pages[0].image.pixels.shape == (5, 10, 3)
    assert [place for place, _ in story.distractors] == [3]


A, B, C = "One.", "Two.", "Three."


@pytest.mark.parametrize(
    "texts, images, pages, distractors",
    [
        # Text first: an image belongs to what stands before it.
        ([A, None, B, None], [None, 0, None, 1], [(A, 0), (B, 1)], []),
        ([A, B, None, C, None], [None, None, 0, None, 1], [(f"{A} {B}", 0), (C, 1)], []),
        ([A, None, B, None, C], [None, 0, None, 1, None], [(A, 0), (f"{B} {C}", 1)], []),
        ([A, None, None, B, None], [None, 0, 5, None, 1], [(A, 0), (B, 1)], [(1, 5)]),
        ([A, None, B, None, None], [None, 0, None, 1, 5], [(A, 0), (f"{B}", 1)], []),
        # Image first: to what stands after it.
        ([None, A, None, B], [0, None, 1, None], [(A, 0), (B, 1)], []),
        ([None, None, A, None, B], [5, 0, None, 1, None], [(A, 0), (B, 1)], [(0, 5)]),
        # Both at one place, as some corpora have it: the text comes first.
        ([A, B], [0, 1], [(A, 0), (B, 1)], []),
        # Blank texts are none.
        ([A, None, "  ", None, B, None], [None, 0, None, 5, None, 1], [(A, 0), (B, 1)], [(1, 5)]),
    ],
)
def test_interleaved_lists(folder, texts, images, pages, distractors):
    named = [None if n is None else file(n) for n in images]
    story = told(folder, {"texts": texts, "images": named})
    assert [(page.text, number_of(page.image)) for page in story.pages] == pages
    assert [(place, number_of(image)) for place, image in story.distractors] == distractors


@pytest.mark.parametrize(
    "record, reason",
    [
        ("{pages", "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "must hold one JSON object"),
        ({}, "pages must be a list, not None"),
        ({"pages": "none"}, "pages must be a list, not 'none'"),
        ({"pages": ["text"]}, "'text' must be an object with 'text'"),
        ({"pages": [{"image": file(0)}] * 3}, "text must be a text, not None"),
        ({"pages": [{"text": "", "image": file(0)}] * 3}, "page 0 has no text"),
        ({"pages": [{"text": "x", "image": 3}] * 3}, "image must be a text, not 3"),
        ({"pages": [PAGES[0] | {"characters": "Ann"}] * 2}, "characters must be a list"),
        ({"pages": [PAGES[0] | {"characters": [1]}] * 2}, r"characters must be a list of texts, not \[1\]"),
        ({"pages": PAGES, "title": 3}, "title must be a text, not 3"),
        ({"pages": PAGES, "distractors": [{"image": file(1)}]}, "before must be a whole number"),
        ({"pages": PAGES, "distractors": [{"before": -1, "image": file(1)}]}, "before page -1"),
        ({"pages": PAGES[:1]}, "1 pages with text and image; a story has at least two"),
        ({"texts": [A, B], "images": [file(0)]}, "2 texts, but 1 images"),
        ({"texts": [A, 3], "images": [None, file(0)]}, "lists of texts and nulls, not 3"),
        ({"texts": [A, B], "images": [None, None]}, "0 pages"),
        ({"texts": [A, B], "images": [file(0), "http://x.example/1.png"]}, "an address; images must be files"),
        ({"pages": [PAGES[0], PAGES[0] | {"image": "images/9.png"}]}, "names 'images/9.png', which is not there"),
        ({"pages": [PAGES[0], PAGES[0] | {"image": "images"}]}, "names 'images', which is not there"),
        ({"pages": [PAGES[0], PAGES[0] | {"image": "../secret.png"}]}, "'../secret.png', which lies outside"),
        ({"pages": [PAGES[0], PAGES[0] | {"image": "/etc/hostname"}]}, "'/etc/hostname', which lies outside"),
        ({"pages": [PAGES[0], PAGES[0] | {"image": "link.png"}]}, "'link.png', which lies outside"),
        ({"pages": [PAGES[0], PAGES[0] | {"image": "images/../../secret.png"}]}, "lies outside"),
        ({"pages": [PAGES[0], PAGES[0] | {"image": "x\0.png"}]}, "which can be no file's name"),
        ({"pages": [PAGES[0], PAGES[0] | {"image": "x" * 5000}]}, "which can be no file's name"),
        ({"pages": [PAGES[0], PAGES[0] | {"image": "broken.png"}]}, "broken.png: not an image"),
    ],
)
def test_what_is_wrong_with_a_story_is_said_in_one_line(folder, record, reason):
    os.symlink(folder / "secret.png", folder / "stories/link.png")
    (folder / "stories/broken.png").write_bytes(b"x")
    with pytest.raises(ItemError, match=reason) as caught:
        told(folder, record)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_story_that_is_no_text_or_too_large_is_a_fault(folder, monkeypatch):
    (folder / "stories/tale.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ItemError, match="not JSON"):
        FolderMaterial(folder).story(0, 0)
    monkeypatch.setattr(documents, "LARGEST", 10)
    with pytest.raises(ItemError, match="too large for one story"):
        told(folder, {"pages": PAGES})
