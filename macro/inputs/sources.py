"""Where sentences are read from: record data sets, folders of JSON files, and mixtures of both.

    open_source("runs/data/music")                              a data set built by `python -m data.build`
    JsonFolderSource("macrodata/customization/train/1-3")       every *.json below the folder, sorted by path
    MixtureSource([a, b], [2, 3])                               two samples of a to three of b

Each is a sequence of sentences with a method `outline(index)`, which returns the same sentence with black images of the
right size: enough for packing to count tokens without decoding an image.
Read next: `macro/inputs/loader.py`.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.decode import DeserializeMethod
from tensorflow_datasets.core.example_parser import ExampleParserNp

from macro.inputs.serialization import IMAGES, decode_sentence
from macro.sentence.formats import load_images, read
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import UserError
from macro.utils.images import size_of


class JsonFolderSource(Sequence):
    """The sentences of a folder of MacroData or INSET JSON files; images are read with their sentence."""

    def __init__(self, folder: str | os.PathLike):
        """Raises UserError if there is no JSON file in or below the folder."""
        self._paths = sorted(str(path) for path in Path(folder).glob("**/*.json"))
        if not self._paths:
            raise UserError(f"{folder}: no .json files are there; name a folder of MacroData or INSET samples")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sentence:
        return load_images(self._read(index))

    def outline(self, index: int) -> Sentence:
        sentence = self._read(index)
        return sentence.replace(spans=tuple(_shapes_only(span) for span in sentence))

    def _read(self, index: int) -> Sentence:
        path = self._paths[index]
        sentence = read(path)
        if sentence.target is None:
            raise UserError(f"{path}: has no output_image; training needs a target")
        return sentence


def _shapes_only(span):
    if not isinstance(span, Image | Target):
        return span
    return dataclasses.replace(span, pixels=np.broadcast_to(np.uint8(0), (*size_of(span.path), 3)))


class MixtureSource(Sequence):
    """Several sources as one, in given proportions.

    One pass holds every sample at least once: the part that is largest relative to its weight once, and the others
    repeated from their start as often as needed. Samples are ordered by part; the loader shuffles them.
    """

    def __init__(self, parts: Sequence[Sequence], weights: Sequence[int | float]):
        """Args: `parts` not empty; `weights` above 0, one per part; only their proportions matter."""
        rounds = max(len(part) / weight for part, weight in zip(parts, weights, strict=True))
        # Slightly smaller, because len / weight * weight may round to above len.
        counts = [int(np.ceil(weight * rounds - 1e-9)) for weight in weights]
        self._parts, self._ends = list(parts), np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sentence:
        part, place = self._locate(index)
        return part[place]

    def outline(self, index: int) -> Sentence:
        part, place = self._locate(index)
        return getattr(part, "outline", part.__getitem__)(place)

    def _locate(self, index: int) -> tuple[Sequence, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sentence {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return self._parts[number], (index - start) % len(self._parts[number])


class RecordSource(Sequence):
    """Random access to the sentences of a data set; can be pickled."""

    def __init__(self, directory: str, truth: bool):
        self._truth = truth
        folder = _find(directory)
        builder = tfds.builder_from_directory(folder)
        [split] = builder.info.splits
        # TFDS's own readers decode every image or need TensorFlow.
        self._source = builder.as_data_source(split=split, deserialize_method=DeserializeMethod.RAW_BYTES)
        self._parser = ExampleParserNp(builder.info.features.get_serialized_info())

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sentence:
        return decode_sentence(self._record(index), truth=self._truth)

    def outline(self, index: int) -> Sentence:
        return decode_sentence(self._record(index), content=False, truth=False)

    def _record(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"sentence {index} of {len(self)}")
        example = self._parser.parse_example(self._source[index])
        record = {name: example[name].decode() for name in ("sentence", "truth")}
        return record | {name: list(example[name]) for name in IMAGES}


def open_source(directory: str, truth: bool = True) -> RecordSource:
    """The sentences of the data set in a folder (or in the only data set below it).

    Args:
        truth: whether to read the ground truth, which is slow and which training does not need.

    Raises:
        UserError: there is no data set, or more than one.
    """
    return RecordSource(directory, truth)


def _find(directory: str) -> str:
    if (Path(directory) / "dataset_info.json").is_file():
        return str(directory)
    found = sorted(Path(directory).glob("**/dataset_info.json"))
    if len(found) != 1:
        what = "no data set" if not found else f"{len(found)} data sets"
        raise UserError(f"data.dir: {directory} holds {what}; name the folder of one (dataset_info.json)")
    return str(found[0].parent)
