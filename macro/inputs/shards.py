"""The shards of a data set that is being built: each is written atomically and kept in a folder until all are done.

A shard covers a range of indices; some may have no sentence. It is three files, and complete when all three exist:

    00003.array_record   its sentences, one record each (`serialization.py`)
    00003.json           facts about them: "samples", their number, and whatever their maker counts
    00003.dead.jsonl     what was dropped, one JSON object per line

Beside them are `spent-*.json`, the cost so far (requests, tokens).

The folder may be anywhere that `etils.epath` writes to (gs://, s3://): remote files are first written to a local
temporary file. Read next: `dataset_builder.py`, which gathers the shards as a TFDS data set.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import file_adapters
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from macro.inputs.serialization import IMAGES, encode_sentence
from macro.sentence.spans import Sentence
from macro.utils.files import atomic_path

_BITS = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
FEATURES = {
    "sentence": tfds.features.Text(doc="task, idx, spans and notes as JSON; see macro/inputs/serialization.py"),
    "images": tfds.features.Sequence(tfds.features.Image(encoding_format="png")),
    "truth": tfds.features.Text(doc="JSON, empty where unknown"),
    "masks": tfds.features.Sequence(_BITS, doc="visible and amodal masks, bit s - 1 is subject s"),
    "albedo": tfds.features.Sequence(
        tfds.features.Image(encoding_format="png"), doc="the subjects' paint without light, black elsewhere; or none"
    ),
}
_PARTS = ("array_record", "json", "dead.jsonl")


@dataclass(frozen=True)
class Shards:
    """`num` indices divided into shards of `size`, and the `folder` of the finished ones."""

    folder: str
    num: int
    size: int

    def __len__(self) -> int:
        return -(-self.num // self.size)

    def places(self, number: int) -> range:
        """The indices of a shard."""
        return range(number * self.size, min((number + 1) * self.size, self.num))

    def missing(self) -> list[int]:
        """The numbers of the shards still to be made."""
        folder = epath.Path(self.folder)
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        return [n for n in range(len(self)) if not all(self._name(n, part) in there for part in _PARTS)]

    def write(self, number: int, sentences: Sequence[Sentence], about: Mapping, dead: Iterable[Mapping] = ()) -> None:
        """Writes a shard, whole or not at all.

        Args:
            sentences: in the order of their indices. about: facts about them. dead: what was dropped. Both are
                JSON-like.

        Raises:
            UserError: the folder cannot be written.
        """
        self.write_dead(number, dead)
        self.write_samples(number, sentences, about)

    def write_dead(self, number: int, dead: Iterable[Mapping]) -> None:
        """Writes the dead letters of a shard alone."""
        lines = (json.dumps(letter, ensure_ascii=False) + "\n" for letter in dead)
        self._write_text(number, "dead.jsonl", "".join(lines))

    def write_samples(self, number: int, sentences: Sequence[Sentence], about: Mapping) -> None:
        """Writes a shard without its dead letters."""
        records = enumerate(map(_record, sentences))
        with whole_anywhere(self.path(number, "array_record")) as half:
            file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD].write_examples(half, records)
        told = {"samples": len(sentences), **about}
        self._write_text(number, "json", json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n")

    def about(self, number: int) -> dict:
        """The facts about a finished shard."""
        return json.loads(self.path(number, "json").read_text())

    def dead(self, number: int) -> list[dict]:
        """What was dropped while a finished shard was made."""
        return [json.loads(line) for line in self.path(number, "dead.jsonl").read_text().splitlines()]

    def write_spent(self, counts: Mapping[str, int]) -> None:
        """Adds to the cost so far. Each call writes its own file: many write at once, and no shard depends on it."""
        with whole_anywhere(epath.Path(self.folder) / f"spent-{uuid.uuid4().hex}.json") as half:
            half.write_text(json.dumps(counts))

    def spent(self) -> dict[str, int]:
        """The cost so far, over all processes and restarts; empty if there is none."""
        folder = epath.Path(self.folder)
        files = folder.glob("spent-*.json") if folder.exists() else ()
        return dict(sum((Counter(json.loads(file.read_text())) for file in files), Counter()))

    def path(self, number: int, part: str = "array_record") -> epath.Path:
        """One of a shard's three files: "array_record", "json" or "dead.jsonl"."""
        return epath.Path(self.folder) / self._name(number, part)

    def clear(self) -> None:
        """Removes the folder."""
        folder = epath.Path(self.folder)
        if folder.exists():
            folder.rmtree()

    def _name(self, number: int, part: str) -> str:
        return f"{number:05d}.{part}"

    def _write_text(self, number: int, part: str, text: str) -> None:
        with whole_anywhere(self.path(number, part)) as half:
            half.write_bytes(text.encode(errors="backslashreplace"))  # lone surrogates, escaped as in JSON


def _record(sentence: Sentence) -> bytes:
    """The `tf.train.Example` of a sentence.

    TFDS leaves encoded images as they are if they come as files. Its own `serialize_example` writes the features in
    an order that differs between processes.
    """
    record = encode_sentence(sentence)
    record |= {name: [io.BytesIO(png) for png in record[name]] for name in IMAGES}
    features = tfds.features.FeaturesDict(FEATURES)
    example = ExampleSerializer(features.get_serialized_info()).get_tf_example(features.encode_example(record))
    return example.SerializeToString(deterministic=True)


@contextlib.contextmanager
def whole_anywhere(path: str | os.PathLike) -> Iterator[Path]:
    """`macro.utils.files.atomic_path` for paths that may be remote."""
    path = epath.Path(path)
    if is_local(path):
        with atomic_path(path) as half:
            yield half
        return
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / path.name
        yield half
        path.parent.mkdir(parents=True, exist_ok=True)
        epath.Path(half).copy(path, overwrite=True)


def is_local(path: str | os.PathLike) -> bool:
    return "://" not in os.fspath(path)


def link(source: epath.Path, target: epath.Path) -> None:
    """Hard-links a file, or copies it where there are no hard links."""
    try:
        os.link(source, target)
    except OSError:
        if not is_local(source):
            source.copy(target, overwrite=True)
        else:
            shutil.copyfile(source, target)
