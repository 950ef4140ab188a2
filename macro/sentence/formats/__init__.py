"""JSON files of one sample each: MacroData's (`prompt`, `input_images`) and INSET's (`caption`, `map`, `images`).

In both, `task`, `idx` and `output_image` are optional (defaults: 'compose', 0, no target), and image paths are relative
to the file.
"""

import dataclasses
import os
from pathlib import Path

from macro.sentence.formats import inset, macrodata
from macro.sentence.formats.json_fields import read_field, read_object, relative_to
from macro.sentence.spans import Image, Sentence, Span, Target
from macro.utils import images as images_io


def read(path: str | os.PathLike) -> Sentence:
    """Reads a file of either format (one with a `caption` is INSET's); images are not read before `load_images`.

    Raises:
        UserError: the file is missing or no JSON, a field is missing or of the wrong type; see also
            `prompt.check_prompt` and `inset.from_phrase_map`.
    """
    path = Path(path)
    record = read_object(path)
    spans = inset.spans_of(path, record) if "caption" in record else macrodata.spans_of(path, record)
    if record.get("output_image") is not None:
        spans += (Target(path=relative_to(path, read_field(path, record, "output_image", str))),)
    return Sentence(spans, read_field(path, record, "task", str, "compose"), read_field(path, record, "idx", int, 0))


def load_images(sentence: Sentence, max_pixels: int = images_io.MAX_PIXELS) -> Sentence:
    """A copy with the pixels of every image; images that so far are only a path are read."""

    def load(span: Span) -> Span:
        if isinstance(span, (Image, Target)) and span.pixels is None and span.path is not None:
            return dataclasses.replace(span, pixels=images_io.load(span.path, max_pixels))
        return span

    return sentence.replace(spans=tuple(load(span) for span in sentence))
