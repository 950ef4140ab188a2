"""Reads a folder in MacroData's published layout and stores it as a data set of records.

python -m data.build macrodata --from_json=FOLDER --out=runs/data

Any folder of MacroData or INSET files will do. A file that is not JSON, lacks a field, or names an image that is
missing or outside the folder goes to the dead-letter file, and the others go on. Files under a folder `train` or
`eval` belong to that split, others to any. Records keep images, prompt, task and idx, and no path.
Read next: `layout.py` (the way out), `macro/engines/core.py`.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.builders import engine_builder
from data.shards import bucket_of_count
from macro.engines.core import Candidate, Engine, Step, notes_of
from macro.engines.provider import Provider
from macro.sentence.formats import load_images, read
from macro.sentence.prompt import ARRANGEMENTS, arrange
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import UserError

_SPLITS = ("train", "eval")


@dataclass(frozen=True)
class Options:
    """Which files are read, and how.

    Attributes:
        arrangement: where the images of MacroData's prompts go, one of `prompt.ARRANGEMENTS`.
        folder, split: which files; `digest` follows from their names and sizes, so other files make another data set.
            `options_of` fills in all three.
    """

    arrangement: str = "in_sentence"
    folder: str = ""
    split: str = "train"
    digest: str = ""

    def __post_init__(self):
        if self.arrangement not in ARRANGEMENTS:
            raise UserError(f"--engine.arrangement={self.arrangement}: choose one of {', '.join(ARRANGEMENTS)}")


def options_of(options: Options, folder: str, split: str) -> Options:
    """The options to read a folder's split with.

    Raises:
        UserError: the folder has no JSON file of that split.
    """
    files = files_of(folder, split)
    if not files:
        raise UserError(f"--from_json={folder}: no .json files of split {split} are there; name MacroData's folder")
    sizes = ((name, os.path.getsize(os.path.join(folder, name))) for name in files)
    digest = hashlib.sha256(repr(list(sizes)).encode()).hexdigest()[:16]
    return dataclasses.replace(options, folder=folder, split=split, digest=digest)


@functools.cache
def files_of(folder: str, split: str) -> tuple[str, ...]:
    """The JSON files of a folder, sorted by their paths below it; listed once per process."""
    names = (path.relative_to(folder) for path in Path(folder).glob("**/*.json"))
    others = set(_SPLITS) - {split}
    return tuple(sorted(str(name) for name in names if not others & set(name.parts[:-1])))


@dataclass(frozen=True, eq=False)
class ReadCandidate(Candidate):
    """A file below the folder; its sentence once it has been read."""

    file: str = ""
    sentence: Sentence | None = None


def start(seed: int, index: int, attempt: int, options: Options) -> ReadCandidate:
    """Task and bucket are the folders' names until the file is read."""
    file = files_of(options.folder, options.split)[index]
    parts = Path(file).parts
    place = next((i for i, part in enumerate(parts[:-1]) if part == options.split and i), None)
    task, bucket = ("", "") if place is None else (parts[place - 1], "/".join(parts[place + 1 : -1]))
    return ReadCandidate(seed, index, attempt, task, bucket, file=file)


def _read(candidates: list[ReadCandidate], provider: Provider | None, options: Options) -> list[ReadCandidate]:
    def parsed(candidate: ReadCandidate) -> ReadCandidate:
        sentence = arrange(read(os.path.join(options.folder, candidate.file)), options.arrangement)
        try:
            f"{sentence.task} {sentence.text}".encode()
        except UnicodeEncodeError:
            raise UserError(f"{candidate.file}: holds half a character (a lone surrogate); mend the text") from None
        return candidate.replace(sentence=sentence, task=sentence.task, bucket=bucket_of_count(len(sentence.images)))

    return [_or_dead("read", candidate, options, parsed) for candidate in candidates]


def _stay_inside(candidates: list[ReadCandidate], provider: Provider | None, options: Options) -> list[ReadCandidate]:
    """Rejects images outside the folder, also those reached through a link."""
    root = os.path.join(os.path.realpath(options.folder), "")

    def inside(candidate: ReadCandidate) -> ReadCandidate:
        for span in candidate.sentence:
            if isinstance(span, Image | Target) and not os.path.realpath(span.path).startswith(root):
                name = os.path.relpath(span.path, options.folder)
                return candidate.check("inside", False, None, f"{candidate.file}: {name} lies outside the folder")
        return candidate.check("inside", True)

    return [inside(candidate) for candidate in candidates]


def _load(candidates: list[ReadCandidate], provider: Provider | None, options: Options) -> list[ReadCandidate]:
    def loaded(candidate: ReadCandidate) -> ReadCandidate:
        if candidate.sentence.target is None:
            raise UserError(f"{candidate.file}: has no output_image; there is nothing to learn to draw")
        return candidate.replace(sentence=load_images(candidate.sentence))

    return [_or_dead("images", candidate, options, loaded) for candidate in candidates]


def _or_dead(
    name: str, candidate: ReadCandidate, options: Options, then: Callable[[ReadCandidate], ReadCandidate]
) -> ReadCandidate:
    """`then(candidate)`, or the candidate dropped with an error that begins with the file's path below the folder."""
    try:
        return then(candidate)
    except UserError as error:
        reason = str(error).replace(os.path.join(options.folder, ""), "")
        return candidate.replace(
            dropped=(name, reason if reason.startswith(candidate.file) else f"{candidate.file}: {reason}")
        )


def finish(candidate: ReadCandidate, options: Options) -> Sentence:
    """The sentence without paths, which mean nothing where the records go."""
    spans = (
        dataclasses.replace(span, path=None) if isinstance(span, Image | Target) else span
        for span in candidate.sentence
    )
    return candidate.sentence.replace(spans=tuple(spans), notes=notes_of(candidate, ENGINE, file=candidate.file))


# One attempt: reading a file again changes nothing.
ENGINE = Engine(
    name="macrodata",
    version="1.0.0",
    options=Options,
    start=start,
    steps=(Step("read", _read), Step("inside", _stay_inside), Step("images", _load)),
    finish=finish,
    max_attempts=1,
    needs_provider=False,
)

Builder = engine_builder("data.macrodata.from_json:ENGINE")
