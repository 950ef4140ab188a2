"""Files and prompts <-> sentences: MacroData JSON, INSET phrase maps, and the two arrangements of one sample.

A prompt names its images as `<image n>`, counted from 1: "The dog of <image 1> sits on <image 2>."

    in_sentence    "The dog of " [image 1] " sits on " [image 2] "."     INSET: images are words
    image_first    "<image 1>" [image 1] "<image 2>" [image 2] "The dog of <image 1> sits on <image 2>."

In a sentence an image stands at its first mention, later mentions stay text; images that are never
mentioned come first, and carry no number. An image to edit (role "source") is no word of the sentence: it comes first,
so that every word has seen it, and all its mentions stay text. Both arrangements hold the whole prompt: `prompt_of`
reads it back exactly. Read next: `macro/inputs/packing.py`.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from macro.sentence.spans import MAX_REFERENCES, Image, Sentence, Span, Target, Text
from macro.utils import images as images_io
from macro.utils.errors import UserError
from macro.utils.files import atomic_write

_MARKER = re.compile(r"<image (\d+)>")
_NEARLY = re.compile(r"[<\[(]\s*image[\s_#-]*(\d+)\s*[>\])]", re.IGNORECASE)


def marker(number: int) -> str:
    return f"<image {number}>"


def check_prompt(prompt: str, images: int, source: str = "prompt") -> None:
    """Holds a prompt against the number of its images.

    Raises:
        UserError: an empty prompt, an image named that is not there, more than 12 images.
    """
    if not prompt.strip():
        raise UserError(f"{source}: is empty; say what the image should show")
    if images > MAX_REFERENCES:
        raise UserError(f"{source}: {images} images, but at most {MAX_REFERENCES} fit; leave some out")
    for mention in _MARKER.finditer(prompt):
        if mention[0] != marker(int(mention[1])) or int(mention[1]) < 1:
            raise UserError(f"{source}: {mention[0]} is no image's name; count from <image 1>")
        if int(mention[1]) > images:
            have = {0: "no image is given", 1: "there is only 1 image"}.get(
                images, f"there are only {images} images"
            )
            raise UserError(f"{source}: names {mention[0]}, but {have}; add it or change the number")


# ---- the two arrangements ----


def in_sentence(prompt: str, images: Sequence[Image]) -> tuple[Span, ...]:
    """Images as words; `images[n - 1]` is `<image n>`."""
    check_prompt(prompt, len(images))
    mentioned: set[int] = set()
    first = {n for n, image in enumerate(images, 1) if image.role == "source"}
    spans: list[Span] = []
    text, at = "", 0
    for mention in _MARKER.finditer(prompt):
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
    """A marker and its image for each, then the whole prompt; `images[n - 1]` is `<image n>`."""
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

    Only the prompt is rearranged: the leading given texts and images. Plan, target, learnt text and what
    follows them stay as they are.
    """
    head, tail = _split(sentence)
    if arrangement == AS_GIVEN or _is_image_first(head) == (arrangement == "image_first"):
        return sentence
    spans = ARRANGEMENTS[arrangement](prompt_of(sentence), numbered_images(sentence))
    return sentence.replace(spans=spans + tail)


def prompt_of(sentence: Sentence) -> str:
    """The prompt with `<image n>` markers, from either arrangement."""
    head, _ = _split(sentence)
    if _is_image_first(head):
        return head[-1].text
    return "".join(_word(span) for span in head)


def _word(span: Text | Image) -> str:
    """What a span of the in-sentence arrangement says in the prompt."""
    if isinstance(span, Text):
        return span.text
    return "" if span.number is None or span.role == "source" else marker(span.number)


def numbered_images(sentence: Sentence) -> tuple[Image, ...]:
    """The prompt's images by number: entry n - 1 is `<image n>`; unmentioned ones fill the free numbers.

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
    """The prompt's spans, and what comes from the first plan, target or learnt text on."""
    for i, span in enumerate(sentence):
        if not (isinstance(span, Image) or (isinstance(span, Text) and not span.learn)):
            return sentence.spans[:i], sentence.spans[i:]
    return sentence.spans, ()


def _is_image_first(head: tuple[Span, ...]) -> bool:
    """Unmistakable: in a sentence no text before image n's place can name it."""
    images = head[1:-1:2]
    return (
        len(head) >= 3
        and len(head) % 2 == 1
        and all(isinstance(image, Image) and image.number == n for n, image in enumerate(images, 1))
        and all(head[2 * n - 2] == Text(marker(n)) for n in range(1, len(images) + 1))
        and isinstance(head[-1], Text)
    )


# ---- a user's call ----


def compose_sentence(
    instruction: str,
    images: Sequence[str | os.PathLike | np.ndarray],
    size: tuple[int, int] | None,
    source: str | os.PathLike | np.ndarray | None = None,
) -> Sentence:
    """What a user asks for, in the in-sentence arrangement: image n shows subject n.

    Args:
        instruction: may name images as `<image n>`; images it does not name come first.
        images: files, or arrays uint8[h, w, 3].
        size: (height, width) of the image to draw; None leaves the target out.
        source: an image to edit. It is then `<image 1>`, of nobody in particular, and `images` go on from
            `<image 2>`, which shows subject 1.

    Raises:
        UserError: see `check_prompt`, `macro.utils.images.load`; a marker written almost right; or an array of
            another shape or type.
    """
    for mention in _NEARLY.finditer(instruction):
        if not _MARKER.fullmatch(mention[0]):
            right = marker(int(mention[1]))
            raise UserError(f"instruction: {mention[0]!r} names no image; write {right}")
    sources = [] if source is None else [source]
    check_prompt(instruction, len(sources) + len(images), "instruction")
    given = [_given(image, n, role="source") for n, image in enumerate(sources, 1)]
    given += [_given(image, len(sources) + n, subject=n) for n, image in enumerate(images, 1)]
    target = () if size is None else (Target(size=size),)
    return Sentence((*in_sentence(instruction, given), *target), "edit" if sources else "compose")


def _given(image: str | os.PathLike | np.ndarray, number: int, **how) -> Image:
    if not isinstance(image, np.ndarray):
        return Image(images_io.load(image), str(image), **how)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"image {number}: {image.dtype}{list(image.shape)}; it must be uint8[height, width, 3]")
    return Image(image, **how)


def with_pixels(sentence: Sentence, max_pixels: int = images_io.MAX_PIXELS) -> Sentence:
    """A copy in which every image that is only a file so far has been read."""

    def read(span: Span) -> Span:
        if isinstance(span, (Image, Target)) and span.pixels is None and span.path is not None:
            return dataclasses.replace(span, pixels=images_io.load(span.path, max_pixels))
        return span

    return sentence.replace(spans=tuple(read(span) for span in sentence))


# ---- MacroData JSON ----


def read_macrodata(path: str | os.PathLike) -> Sentence:
    """Reads `{"task", "idx", "prompt", "input_images", "output_image"}`; images stay files (`with_pixels`).

    The images stand in the sentence; `arrange` gives the other arrangement.

    Paths in the file are relative to it. `task`, `idx` and `output_image` may be missing ('compose', 0, no
    target), and `input_images` empty (text to image). For customization and 'compose' image n shows subject n;
    elsewhere images show no subject. For 'edit' the first image is the one to edit.

    Raises:
        UserError: no such file, no JSON, a field missing or ill-typed, or see `check_prompt`.
    """
    path = Path(path)
    return _macrodata(path, _read_json(path))


def _macrodata(path: Path, record: dict) -> Sentence:
    prompt = _field(path, record, "prompt", str)
    files = _field(path, record, "input_images", list)
    if not all(isinstance(file, str) for file in files):
        raise UserError(f"{path}: input_images must be a list of file names")
    check_prompt(prompt, len(files), f"{path}: prompt")
    task = _field(path, record, "task", str, "compose")
    bound = task in ("compose", "customization")
    images = [
        Image(path=_beside(path, file), subject=n if bound else None, role=_role(task, n))
        for n, file in enumerate(files, 1)
    ]
    spans = in_sentence(prompt, images)
    return _with_target(path, record, spans)


def _role(task: str, number: int) -> str:
    return "source" if task == "edit" and number == 1 else "reference"


def write_macrodata(path: str | os.PathLike, sentence: Sentence) -> None:
    """Writes a sentence as MacroData JSON; images that have no file yet are saved beside it as PNG."""
    path = Path(path)
    images = numbered_images(sentence)
    prompt = prompt_of(sentence)
    check_prompt(prompt, len(images), f"{path}: prompt")
    _write_json(path, sentence, {"prompt": prompt, "input_images": _files_of(path, images)})


# ---- INSET phrase -> image maps ----


def read_inset(path: str | os.PathLike) -> Sentence:
    """Reads `{"caption": "A robot holds a vase.", "map": {"robot": 1, "vase": 2}, "images": [files], ...}`.

    Each phrase stands in the caption as a whole word; image n takes its place right before the first such
    occurrence that no longer phrase covers: "A " [image 1] " robot holds a " [image 2] " vase.".
    One phrase an image. `task`, `idx`, `output_image` as in MacroData; images stay files.

    Raises:
        UserError: as `read_macrodata` and `phrased`.
    """
    path = Path(path)
    return _inset(path, _read_json(path))


def _inset(path: Path, record: dict) -> Sentence:
    caption = _field(path, record, "caption", str)
    files = _field(path, record, "images", list)
    phrases = _field(path, record, "map", dict)
    if not all(isinstance(file, str) for file in files):
        raise UserError(f"{path}: images must be a list of file names")
    check_prompt(caption, len(files), f"{path}: caption")
    images = [Image(path=_beside(path, file), subject=n) for n, file in enumerate(files, 1)]
    spans = phrased(caption, phrases, images, str(path))
    return _with_target(path, record, spans)


def write_inset(path: str | os.PathLike, sentence: Sentence) -> None:
    """Writes a sentence whose images know their phrases as INSET JSON; saves images that have no file."""
    path = Path(path)
    images = numbered_images(sentence)
    caption = prompt_of(sentence)
    for n, image in enumerate(images, 1):
        if image.phrase is not None:
            caption = caption.replace(f"{marker(n)} {image.phrase}", image.phrase, 1)
    left = _MARKER.search(caption)
    if left:
        raise UserError(f"{path}: {left[0]} stands before no phrase of its own; give the image its phrase")
    known = [image.phrase for image in images if image.phrase is not None]
    if len(set(known)) < len(known):
        raise UserError(f"{path}: two images have one phrase, which the map cannot tell apart; give each its own")
    phrases = {image.phrase: n for n, image in enumerate(images, 1) if image.phrase is not None}
    _write_json(path, sentence, {"caption": caption, "map": phrases, "images": _files_of(path, images)})


def phrased(caption: str, phrases: Mapping, images: Sequence[Image], source: str = "caption") -> tuple[Span, ...]:
    """INSET's arrangement: `images[n - 1]` stands right before the phrase that `phrases` sends to n, and knows it.

    A phrase's place is its first occurrence, as whole words, that no longer phrase covers. Images without a phrase
    come first.

    Raises:
        UserError: see `check_prompt`; a marker in the caption, a phrase that has no place there, a number that is no
            image's, or two phrases for one image; messages begin with `source`.
    """
    prompt = _mark_phrases(source, caption, phrases, len(images))
    phrase_of = {number: phrase for phrase, number in phrases.items()}
    knowing = [dataclasses.replace(image, phrase=phrase_of.get(n)) for n, image in enumerate(images, 1)]
    return in_sentence(prompt, knowing)


def _mark_phrases(source: str, caption: str, phrases: Mapping, images: int) -> str:
    """The caption with `<image n> ` before each phrase's place; longer phrases choose their places first."""
    if _MARKER.search(caption):
        raise UserError(f"{source}: caption holds an <image n> marker; the map says where images stand")
    for phrase, number in phrases.items():
        if type(number) is not int or not 1 <= number <= images:
            raise UserError(f"{source}: map sends {phrase!r} to image {number!r}, but there are {images}")
    if len(set(phrases.values())) < len(phrases):
        raise UserError(f"{source}: map gives two phrases to one image; keep one")
    places: list[tuple[int, int, int]] = []
    for phrase in sorted(phrases, key=len, reverse=True):
        found = re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", caption) if phrase.strip() else ()
        free = (m.span() for m in found if all(m.end() <= a or b <= m.start() for a, b, _ in places))
        place = next(free, None)
        if place is None:
            raise UserError(f"{source}: map names {phrase!r}, which has no place of its own in the caption")
        places.append((*place, phrases[phrase]))
    for start, _, number in sorted(places, reverse=True):
        caption = f"{caption[:start]}{marker(number)} {caption[start:]}"
    return caption


# ---- files ----


def read(path: str | os.PathLike) -> Sentence:
    """Reads a file of either format: one with a `caption` is INSET's."""
    path = Path(path)
    record = _read_json(path)
    return _inset(path, record) if "caption" in record else _macrodata(path, record)


def _read_json(path: Path) -> dict:
    try:
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:  # the second where brackets go too deep
        raise UserError(f"{path}: not JSON ({error}); mend or replace the file") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: must hold one JSON object {{...}}")
    return record


_MISSING = object()
_NAMES = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def _field(path: Path, record: dict, name: str, kind: type, default=_MISSING):
    value = record.get(name, default)
    if value is _MISSING:
        raise UserError(f"{path}: has no field {name!r}; add it ({_NAMES[kind]})")
    if type(value) is not kind:
        raise UserError(f"{path}: {name} must be {_NAMES[kind]}, not {value!r:.40}")
    return value


def _with_target(path: Path, record: dict, spans: tuple[Span, ...]) -> Sentence:
    """The fields that both formats share: task, index and the target's file."""
    task, idx = _field(path, record, "task", str, "compose"), _field(path, record, "idx", int, 0)
    if record.get("output_image") is not None:
        spans += (Target(path=_beside(path, _field(path, record, "output_image", str))),)
    return Sentence(spans, task, idx)


def _write_json(path: Path, sentence: Sentence, fields: dict) -> None:
    record = {"task": sentence.task, "idx": sentence.idx, **fields}
    target = sentence.target
    if target is not None and (target.path is not None or target.pixels is not None):
        record["output_image"] = _file_of(path, target, "output")
    atomic_write(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _beside(path: Path, file: str) -> str:
    return os.path.join(path.parent, file)


def _files_of(path: Path, images: Sequence[Image]) -> list[str]:
    return [_file_of(path, image, f"input{n}") for n, image in enumerate(images, 1)]


def _file_of(path: Path, image: Image | Target, name: str) -> str:
    """An image's file as the JSON beside it names it; saved first where there is none."""
    if image.path is None:
        file = f"{path.stem}_{name}.png"
        images_io.save(path.with_name(file), image.pixels)
        return file
    folder = os.path.join(path.parent, "")
    if image.path.startswith(folder):  # undoes `_beside` letter by letter
        return image.path[len(folder) :]
    return image.path if os.path.isabs(image.path) else os.path.relpath(image.path, path.parent)
