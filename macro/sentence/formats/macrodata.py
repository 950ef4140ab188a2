"""MacroData's JSON: {"task", "idx", "prompt": "The dog of <image 1> ...", "input_images": [files], "output_image"}.

In the tasks customization and 'compose' image n shows subject n; in others images show no subject. In 'edit' the first
image is the one to edit. `input_images` may be empty (text to image).
"""

import json
import os
from pathlib import Path

from macro.sentence.formats.json_fields import read_field, read_files
from macro.sentence.prompt import check_prompt, images_by_number, in_sentence, prompt_of
from macro.sentence.spans import Image, Sentence, Span, Target
from macro.utils import images as images_io
from macro.utils.files import atomic_write


def spans_of(path: Path, record: dict) -> tuple[Span, ...]:
    """The spans of a file's record, in the in-sentence arrangement. Raises what `formats.read` does."""
    prompt = read_field(path, record, "prompt", str)
    files = read_files(path, record, "input_images")
    check_prompt(prompt, len(files), f"{path}: prompt")
    task = read_field(path, record, "task", str, "compose")
    bound, edit = task in ("compose", "customization"), task == "edit"
    images = [
        Image(path=file, subject=n if bound else None, role="source" if edit and n == 1 else "reference")
        for n, file in enumerate(files, 1)
    ]
    return in_sentence(prompt, images)


def write_macrodata(path: str | os.PathLike, sentence: Sentence) -> None:
    """Writes a sentence; images without a file are saved beside it as PNG."""
    path = Path(path)
    images, prompt = images_by_number(sentence), prompt_of(sentence)
    check_prompt(prompt, len(images), f"{path}: prompt")
    record = {"task": sentence.task, "idx": sentence.idx, "prompt": prompt}
    record["input_images"] = [_file_of(path, image, f"input{n}") for n, image in enumerate(images, 1)]
    target = sentence.target
    if target is not None and (target.path is not None or target.pixels is not None):
        record["output_image"] = _file_of(path, target, "output")
    atomic_write(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _file_of(path: Path, image: Image | Target, name: str) -> str:
    """The path of an image relative to the JSON file; an image without a file is saved first."""
    if image.path is None:
        file = f"{path.stem}_{name}.png"
        images_io.save(path.with_name(file), image.pixels)
        return file
    folder = os.path.join(path.parent, "")
    if image.path.startswith(folder):  # the exact inverse of `json_fields.relative_to`
        return image.path[len(folder) :]
    return image.path if os.path.isabs(image.path) else os.path.relpath(image.path, path.parent)
