"""Turns answers that match their schema into what stages return, checking them against the stage's input.

A parser raises `ItemError` with a reason; the model is sent that reason and answers again.
Read next: `language.py`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from macro.engines.provider import (
    Box,
    InterleavedCaption,
    Match,
    Region,
    RewrittenPage,
    ScenePrompt,
    SceneRequest,
    Suitability,
)
from macro.judges.json_schema import Schema, array, integer, number, obj, text
from macro.sentence.formats.inset import from_phrase_map
from macro.sentence.plan import validate_cot
from macro.sentence.prompt import check_prompt, marker
from macro.sentence.spans import Image
from macro.utils.errors import ItemError, UserError

SUMMARY_WORDS = 50  # MACRO: a summary has fewer words

BOX = array(number(0, 1), 4, 4)


def phrases(count: int) -> Schema:
    """Schema of phrases for `count` images; engines cope with missing images."""
    return array(obj(phrase=text(), image=integer(1, count)), 1, count)


def line(written: str) -> str:
    """The text on one line with single spaces."""
    return " ".join(written.split())


def line_of(field: str) -> Callable[[dict], str]:
    """Reads a text field as one line."""
    return lambda answer: line(answer[field])


def field(name: str) -> Callable[[dict], Any]:
    """Reads a field unchanged."""
    return lambda answer: answer[name]


def noun_phrase(answer: dict) -> str:
    phrase = line(answer["phrase"]).rstrip(".")
    if not phrase:
        raise ItemError("phrase is empty")
    return phrase


def labels(answer: dict) -> list[str]:
    return [line(label) for label in answer["labels"]]


def scene_prompt(asked: SceneRequest, answer: dict) -> ScenePrompt:
    """A scene of the offered categories; an adjective may precede one to tell two of a kind apart."""
    chosen = tuple(labels(answer))
    for label in chosen:
        if not any(f" {label}".lower().endswith(f" {category}".lower()) for category in asked.categories):
            raise ItemError(f"label {label!r} is none of the categories")
    return ScenePrompt(line(answer["caption"]), chosen)


def with_markers(written: str, count: int, field: str) -> str:
    """A line that names each of `count` images, and no other."""
    prompt = line(written)
    with _as_item_error():
        check_prompt(prompt, count, field)
    missing = [marker(n) for n in range(1, count + 1) if marker(n) not in prompt]
    if missing:
        raise ItemError(f"{field} lacks {', '.join(missing)}")
    return prompt


def instruction(count: int, answer: dict) -> str:
    return with_markers(answer["instruction"], count, "instruction")


def thought(regions: Sequence[Region], answer: dict) -> str:
    """A chain of thought that mentions every subject by its number, its label, or at least its noun."""
    cot = line(answer["thought"])
    with _as_item_error():
        validate_cot(cot)
    for n, region in enumerate(regions, 1):
        noun = region.label.lower().split()[-1]
        if not (_has_whole_words(cot, str(n)) or _has_whole_words(cot.lower(), noun)):
            raise ItemError(f"thought says nothing of subject {n}, the {region.label}")
    return cot


def _has_whole_words(written: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", written) is not None


@contextmanager
def _as_item_error() -> Iterator[None]:
    """Turns errors of the checks on users' files into the item's own error."""
    try:
        yield
    except UserError as error:
        raise ItemError(str(error)) from None


def interleaved(count: int, answer: dict) -> InterleavedCaption:
    """A caption with a distinct phrase for each of the `count` images that it mentions."""
    caption = line(answer["caption"])
    found: dict[str, int] = {}
    for entry in answer["phrases"]:
        phrase = line(entry["phrase"])
        if phrase in found:
            raise ItemError(f"phrase {phrase!r} is given to two images")
        found[phrase] = entry["image"]
    with _as_item_error():
        from_phrase_map(caption, found, [Image(path=str(n)) for n in range(1, count + 1)], "the answer")
    return InterleavedCaption(caption, found)


def box(given: Sequence[int | float], at: str) -> Box:
    """A non-empty bounding box; the schema ensures that it lies in the image."""
    x0, y0, x1, y1 = map(float, given)
    if not (x0 < x1 and y0 < y1):
        raise ItemError(f"{at} box [{x0:g}, {y0:g}, {x1:g}, {y1:g}] is empty; it must have x0 < x1 and y0 < y1")
    return x0, y0, x1, y1


def matches(answer: dict) -> list[Match]:
    found = []
    for thing in answer["things"]:
        label = line(thing["label"])
        if label in [match.label for match in found]:
            raise ItemError(f"label {label!r} stands twice")
        before, after = (Region(label, box(thing[side], f"{label}'s {side}")) for side in ("before", "after"))
        found.append(Match(label, before, after))
    return found


def suitability(count: int, answer: dict) -> Suitability:
    return Suitability(float(answer["score"]), tuple(map(line, answer["descriptions"])), instruction(count, answer))


def rewritten(answer: dict) -> RewrittenPage:
    """Which images a page needs, and a text that names each of them, the first of `kept` as `<image 1>`."""
    kept: list[int] = answer["kept"]
    if len(set(kept)) < len(kept):
        raise ItemError("kept names an image twice")
    prompt = with_markers(answer["text"], len(kept), "text")
    return RewrittenPage(prompt, tuple(n - 1 for n in kept))


def summary(answer: dict) -> str:
    told = line(answer["summary"])
    count = len(told.split())
    if count >= SUMMARY_WORDS:
        raise ItemError(f"summary has {count} words; it must have fewer than {SUMMARY_WORDS}")
    return told
