"""INSET's phrase maps: {"caption": "A robot holds a vase.", "map": {"robot": 1, "vase": 2}, "images": [files], ...}.

Each phrase occurs in the caption as whole words and belongs to exactly one image. Image n is placed right before its
phrase: "A " [image 1] " robot holds a " [image 2] " vase.".
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from macro.sentence.formats.json_fields import read_field, read_files
from macro.sentence.prompt import MARKER, check_prompt, in_sentence, marker
from macro.sentence.spans import Image, Span
from macro.utils.errors import UserError


def spans_of(path: Path, record: dict) -> tuple[Span, ...]:
    """The spans of a file's record; image n shows subject n. Raises what `formats.read` does."""
    caption = read_field(path, record, "caption", str)
    files = read_files(path, record, "images")
    phrases = read_field(path, record, "map", dict)
    check_prompt(caption, len(files), f"{path}: caption")
    images = [Image(path=file, subject=n) for n, file in enumerate(files, 1)]
    return from_phrase_map(caption, phrases, images, str(path))


def from_phrase_map(
    caption: str, phrases: Mapping, images: Sequence[Image], source: str = "caption"
) -> tuple[Span, ...]:
    """The spans in which `images[n - 1]` is right before the phrase that `phrases` maps to n, and holds that phrase.

    A phrase is placed at its first occurrence as whole words outside every longer phrase. Images without a phrase come
    first.

    Raises:
        UserError: see `check_prompt`; a marker in the caption, a phrase without a position of its own, a number without
            an image, or two phrases for one image. Messages begin with `source`.
    """
    prompt = _mark_phrases(source, caption, phrases, len(images))
    phrase_of = {number: phrase for phrase, number in phrases.items()}
    return in_sentence(prompt, [dataclasses.replace(im, phrase=phrase_of.get(n)) for n, im in enumerate(images, 1)])


def _mark_phrases(source: str, caption: str, phrases: Mapping, images: int) -> str:
    """The caption with `<image n> ` before each phrase; longer phrases are placed first."""
    if MARKER.search(caption):
        raise UserError(f"{source}: caption holds an <image n> marker; the map says where images stand")
    for phrase, number in phrases.items():
        if type(number) is not int or not 1 <= number <= images:
            raise UserError(f"{source}: map sends {phrase!r} to image {number!r}, but there are {images}")
    if len(set(phrases.values())) < len(phrases):
        raise UserError(f"{source}: map gives two phrases to one image; keep one")
    taken: list[tuple[int, int, int]] = []
    for phrase in sorted(phrases, key=len, reverse=True):
        found = re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", caption) if phrase.strip() else ()
        free = (m.span() for m in found if all(m.end() <= a or b <= m.start() for a, b, _ in taken))
        place = next(free, None)
        if place is None:
            raise UserError(f"{source}: map names {phrase!r}, which has no place of its own in the caption")
        taken.append((*place, phrases[phrase]))
    for start, _, number in sorted(taken, reverse=True):
        caption = f"{caption[:start]}{marker(number)} {caption[start:]}"
    return caption
