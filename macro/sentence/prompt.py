"""Prompts: the `<image n>` grammar, and the two arrangements of a sample.

A prompt refers to its images as `<image n>`, counted from 1: "The dog of <image 1> sits on <image 2>."

    in_sentence    "The dog of " [image 1] " sits on " [image 2] "."     INSET: images as words
    image_first    "<image 1>" [image 1] "<image 2>" [image 2] "The dog of <image 1> sits on <image 2>."

In-sentence, an image replaces its first mention and later mentions stay text; images that are never mentioned come
first, without a number. An image to edit (role "source") also comes first, so all text can attend to it, and all its
mentions stay text. Both arrangements keep the whole prompt: `prompt_of` reads it back exactly.
Read next: `macro/sentence/formats` (files), `macro/inputs/packing.py`.
"""

import dataclasses
import os
import re
from collections.abc import Sequence

import numpy as np

from macro.sentence.spans import MAX_REFERENCES, Image, Sentence, Span, Target, Text
from macro.utils import images as images_io
from macro.utils.errors import UserError

MARKER = re.compile(r"<image (\d+)>")
_NEARLY = re.compile(r"[<\[(]\s*image[\s_#-]*(\d+)\s*[>\])]", re.IGNORECASE)


def marker(number: int) -> str:
    return f"<image {number}>"


def check_prompt(prompt: str, images: int, source: str = "prompt") -> None:
    """Checks a prompt against the number of its images.

    Raises:
        UserError: an empty prompt, a mention of an image that is not given, more than 12 images.
    """
    if not prompt.strip():
        raise UserError(f"{source}: is empty; say what the image should show")
    if images > MAX_REFERENCES:
        raise UserError(f"{source}: {images} images, but at most {MAX_REFERENCES} fit; leave some out")
    for mention in MARKER.finditer(prompt):
        if mention[0] != marker(int(mention[1])) or int(mention[1]) < 1:
            raise UserError(f"{source}: {mention[0]} is no image's name; count from <image 1>")
        if int(mention[1]) > images:
            have = {0: "no image is given", 1: "there is only 1 image"}.get(
                images, f"there are only {images} images"
            )
            raise UserError(f"{source}: names {mention[0]}, but {have}; add it or change the number")


# ---- the two arrangements ----


def in_sentence(prompt: str, images: Sequence[Image]) -> tuple[Span, ...]:
    """The spans in-sentence; `images[n - 1]` is `<image n>`."""
    check_prompt(prompt, len(images))
    mentioned: set[int] = set()
    first = {n for n, image in enumerate(images, 1) if image.role == "source"}
    spans: list[Span] = []
    text, at = "", 0
    for mention in MARKER.finditer(prompt):
        number = int(mention[1])
        stays = number in mentioned or number in first
        mentioned.add(number)
        if stays:
            continue
        text, at = prompt[at : mention.start()], mention.end()
        spans += [Text(text)] if text else []
        spans.append(dataclasses.replace(images[number - 1], number=number))
    spans += [Text(prompt[at:])] if prompt[at:] else []
    before = [
        dataclasses.replace(image, number=n if n in mentioned else None)
        for n, image in enumerate(images, 1)
        if n in first or n not in mentioned
    ]
    return (*before, *spans)


def image_first(prompt: str, images: Sequence[Image]) -> tuple[Span, ...]:
    """The spans image-first: each marker and its image, then the prompt; `images[n - 1]` is `<image n>`."""
    check_prompt(prompt, len(images))
    listed = [
        span
        for n, image in enumerate(images, 1)
        for span in (Text(marker(n)), dataclasses.replace(image, number=n))
    ]
    return (*listed, Text(prompt))


ARRANGEMENTS = {"in_sentence": in_sentence, "image_first": image_first}
AS_GIVEN = "as_given"


def arrange(sentence: Sentence, arrangement: str) -> Sentence:
    """The same sample in another arrangement: 'in_sentence' or 'image_first'; 'as_given' changes nothing.

    Only the prompt is rearranged: the texts and images before the first plan, target or supervised text.
    The rest stays as it is.
    """
    head, tail = _split(sentence)
    if arrangement == AS_GIVEN or _is_image_first(head) == (arrangement == "image_first"):
        return sentence
    spans = ARRANGEMENTS[arrangement](prompt_of(sentence), images_by_number(sentence))
    return sentence.replace(spans=spans + tail)


def prompt_of(sentence: Sentence) -> str:
    """The prompt with `<image n>` markers, from either arrangement."""
    head, _ = _split(sentence)
    if _is_image_first(head):
        return head[-1].text
    return "".join(_word(span) for span in head)


def _word(span: Text | Image) -> str:
    """The text that stands for a span of the in-sentence arrangement in the prompt."""
    if isinstance(span, Text):
        return span.text
    return "" if span.number is None or span.role == "source" else marker(span.number)


def images_by_number(sentence: Sentence) -> tuple[Image, ...]:
    """The prompt's images by number: entry n - 1 is `<image n>`; unmentioned images get the free numbers.

    Raises:
        UserError: two images with one number, or a number above their count.
    """
    head, _ = _split(sentence)
    images = [span for span in head if isinstance(span, Image)]
    places: list[Image | None] = [None] * len(images)
    for image in images:
        if image.number is None:
            continue
        if image.number > len(images) or places[image.number - 1] is not None:
            raise UserError(
                f"sentence: image number {image.number} is taken twice or above their count {len(images)}; "
                "number them 1, 2, ..."
            )
        places[image.number - 1] = image
    silent = iter(image for image in images if image.number is None)
    return tuple(next(silent) if place is None else place for place in places)


def _split(sentence: Sentence) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """The prompt's spans, and the rest, from the first plan, target or supervised text on."""
    for i, span in enumerate(sentence):
        if not (isinstance(span, Image) or (isinstance(span, Text) and not span.learn)):
            return sentence.spans[:i], sentence.spans[i:]
    return sentence.spans, ()


def _is_image_first(head: tuple[Span, ...]) -> bool:
    """Whether a prompt is image-first. Unambiguous: in-sentence, no text before image n mentions it."""
    images = head[1:-1:2]
    return (
        len(head) >= 3
        and len(head) % 2 == 1
        and all(isinstance(image, Image) and image.number == n for n, image in enumerate(images, 1))
        and all(head[2 * n - 2] == Text(marker(n)) for n in range(1, len(images) + 1))
        and isinstance(head[-1], Text)
    )


# ---- a user's call ----


def build_sentence(
    instruction: str,
    images: Sequence[str | os.PathLike | np.ndarray],
    size: tuple[int, int] | None,
    source: str | os.PathLike | np.ndarray | None = None,
) -> Sentence:
    """The sentence of a user's request, in the in-sentence arrangement: image n shows subject n.

    Args:
        instruction: may refer to images as `<image n>`; those that it does not mention come first.
        images: files, or arrays uint8[h, w, 3].
        size: (height, width) of the image to draw; None: no target.
        source: an image to edit. It is then `<image 1>`, without a subject, and `images` start at
            `<image 2>`, which shows subject 1.

    Raises:
        UserError: see `check_prompt`, `macro.utils.images.load`; a misspelt marker; or an array of another shape
            or type.
    """
    for mention in _NEARLY.finditer(instruction):
        if not MARKER.fullmatch(mention[0]):
            right = marker(int(mention[1]))
            raise UserError(f"instruction: {mention[0]!r} names no image; write {right}")
    sources = [] if source is None else [source]
    check_prompt(instruction, len(sources) + len(images), "instruction")
    given = [_load_image(image, n, role="source") for n, image in enumerate(sources, 1)]
    given += [_load_image(image, len(sources) + n, subject=n) for n, image in enumerate(images, 1)]
    target = () if size is None else (Target(size=size),)
    return Sentence((*in_sentence(instruction, given), *target), "edit" if sources else "compose")


def _load_image(image: str | os.PathLike | np.ndarray, number: int, **how) -> Image:
    if not isinstance(image, np.ndarray):
        return Image(images_io.load(image), str(image), **how)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"image {number}: {image.dtype}{list(image.shape)}; it must be uint8[height, width, 3]")
    return Image(image, **how)
