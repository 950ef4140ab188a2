"""Sentences on disk: ArrayRecord shards written and read through TFDS, without TensorFlow.

`SentenceBuilder` is the TFDS builder of every data set that one of our engines makes (`data/scenes` is one).
It asks the engine for a shard's worth of sentences at a time, keeps finished shards aside until all are
there, and only then lets the data set appear: an interrupted build goes on where it was, and a half-built
data set is never seen. `open_source` gives random access to what was built.
Read next: `macro/inputs/codec.py` (a sentence as a record), `macro/inputs/pipeline.py`.
"""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder, file_adapters, registered
from tensorflow_datasets.core.decode import DeserializeMethod
from tensorflow_datasets.core.example_parser import ExampleParserNp

from macro.inputs.codec import decode_sentence, encode_sentence
from macro.sentence.spans import Sentence
from macro.utils.errors import UserError

# (seed, start, count, options) -> sentences start ... start + count - 1 of the endless data set of that seed;
# options are the engine's own dataclass.
Make = Callable[[int, int, int, Any], Sequence[Sentence]]

SHARD = 256  # sentences in a shard: what a build can lose when it is stopped


class SentenceBuilder(dataset_builder.FileReaderBuilder, skip_registration=True):
    """A data set of sentences with one split, `train`. Subclasses set `name`, `make` and `VERSION`."""

    make: Make

    def __init__(self, *, data_dir: str, seed: int = 0, num: int = 1, options: Any = None, **kwargs):
        """
        Args:
            data_dir: the data set lands in `<data_dir>/<name>/<version>`.
            seed, num: which sentences, and how many. options: handed to `make`.
        """
        self.seed, self.num, self.options = seed, num, options
        super().__init__(data_dir=data_dir, file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        bits = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
        features = {
            "sentence": tfds.features.Text(doc="task, idx and spans as JSON; see macro/inputs/codec.py"),
            "pictures": tfds.features.Sequence(tfds.features.Image(encoding_format="png")),
            "truth": tfds.features.Text(doc="JSON, empty where unknown"),
            "masks": tfds.features.Sequence(bits, doc="visible and amodal masks, bit s - 1 is subject s"),
        }
        about = f"Sentences with pictures in them, seed {getattr(self, 'seed', 0)}. Made by macro's engines."
        return tfds.core.DatasetInfo(
            builder=self,
            description=about,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _make_download_manager(self, download_dir, download_config):
        """Nothing is downloaded, but TFDS wants one; its own would look for checksums beside the code."""
        return tfds.download.DownloadManager(download_dir=self.shards_aside())

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        """Makes the shards that are not there yet, then moves all of them to where TFDS wants them."""
        del dl_manager, download_config
        template, lengths = self._get_filename_template("train"), _shard_lengths(self.num)
        aside = self.shards_aside()
        aside.mkdir(parents=True, exist_ok=True)
        clock = _Clock(self.name, self.num)
        for shard, length in enumerate(lengths):
            path = aside / f"{shard:05d}"
            if path.exists():
                clock.skip(length)
                continue
            self._write_shard(path, shard * SHARD, length)
            clock.done(length)
        size = 0
        for shard in range(len(lengths)):
            final = template.sharded_filepath(shard_index=shard, num_shards=len(lengths))
            size += (aside / f"{shard:05d}").stat().st_size
            shutil.move(aside / f"{shard:05d}", final)
        shutil.rmtree(aside)
        split = tfds.core.SplitInfo(
            name="train", shard_lengths=lengths, num_bytes=size, filename_template=template
        )
        self.info.set_splits(tfds.core.splits.SplitDict([split]))

    def shards_aside(self) -> Path:
        """Where finished shards wait for the others."""
        key = hash_of(self.seed, self.options, str(self.VERSION))
        return Path(self.data_dir_root) / f"{self.name}.shards-{key}"

    def _write_shard(self, path: Path, start: int, length: int) -> None:
        sentences = type(self).make(self.seed, start, length, self.options)
        if len(sentences) != length:
            raise ValueError(
                f"{self.name}: asked for {length} sentences from {start} on, got {len(sentences)}"
            )
        records = ((i, self.info.features.serialize_example(_files(s))) for i, s in enumerate(sentences))
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        writer = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]
        writer.write_examples(unfinished, records)
        os.replace(unfinished, path)


def _files(sentence: Sentence) -> dict:
    """The record as TFDS takes it: it passes encoded pictures through untouched if they come as files."""
    record = encode_sentence(sentence)
    return record | {name: [io.BytesIO(png) for png in record[name]] for name in ("pictures", "masks")}


def _shard_lengths(num: int) -> list[int]:
    return [min(SHARD, num - start) for start in range(0, num, SHARD)]


class _Clock:
    """Progress with rate and time left, on stderr."""

    def __init__(self, name: str, total: int):
        self.name, self.total, self.count, self.made = name, total, 0, 0
        self.start = time.monotonic()

    def skip(self, number: int) -> None:
        self.count += number

    def done(self, number: int) -> None:
        self.count, self.made = self.count + number, self.made + number
        rate = self.made / max(time.monotonic() - self.start, 1e-9)
        left = (self.total - self.count) / rate
        print(
            f"{self.name}: {self.count:,} of {self.total:,} sentences, {rate:.0f} a second, "
            f"{int(left // 60)}:{int(left % 60):02d} left",
            file=sys.stderr,
            flush=True,
        )


def builder_class(name: str, make: Make, version: str) -> type[SentenceBuilder]:
    """A builder of the data set `name`; `version` changes whenever `make` makes anything else than before."""
    with registered.skip_registration():
        members = {"name": name, "make": staticmethod(make), "VERSION": tfds.core.Version(version)}
        return type(name, (SentenceBuilder,), members)


def prepare(
    name: str, directory: str, seed: int, num: int, make: Make, options: Any, version: str = "1.0.0"
) -> str:
    """`build` of the data set that `make` gives, under a name."""
    return build(builder_class(name, make, version), directory, seed, num, options)


def build(builder: type[SentenceBuilder], directory: str, seed: int, num: int, options: Any) -> str:
    """Builds a data set, showing progress; returns its folder.

    Args:
        directory: the data set lands in `<directory>/<name>/<version>`, complete or not at all; one that is there
            already is kept. A build that was stopped goes on if it is called again.
        seed, num: which sentences, and how many. options: the engine's, how they are made.

    Raises:
        UserError: no sentences asked for, or a folder that cannot be written.
    """
    if num < 1:
        raise UserError(f"data.num: {num} sentences are no data set; ask for at least 1")
    try:
        data = builder(data_dir=directory, seed=seed, num=num, options=options)
        data.download_and_prepare()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"data.dir: {directory} cannot be written ({reason}); name another folder") from error
    return str(data.data_dir)


def ensure(
    name: str, make: Make, version: str, seed: int, num: int, options: Any, directory: str | None = None
) -> str:
    """The folder of a data set, which is built first if it is not there.

    Args:
        version: of what `make` makes; a data set of another version is left alone, and a new one built.
        directory: None stands for a folder in the user's cache, named by a hash of seed, num and options.
    """
    if directory is None:
        key = hash_of(seed, num, options)
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        directory = os.path.join(cache, "macro", "data", f"{name}-{key}")
    return prepare(name, directory, seed, num, make, options, version)


def hash_of(*values) -> str:
    """Ten letters that follow from JSON-like values and dataclasses of them."""
    text = json.dumps(values, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


class Records(Sequence):
    """Random access to the sentences of a data set; may be sent to other processes."""

    def __init__(self, directory: str, truth: bool):
        self._truth = truth
        folder = _find(directory)
        builder = tfds.builder_from_directory(folder)
        # TFDS's own ways of reading would decode every picture, or need TensorFlow.
        self._source = builder.as_data_source(split="train", deserialize_method=DeserializeMethod.RAW_BYTES)
        self._parser = ExampleParserNp(builder.info.features.get_serialized_info())

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sentence:
        return decode_sentence(self._record(index), truth=self._truth)

    def outline(self, index: int) -> Sentence:
        """The sentence with black pictures and without truth: all that packing needs to count tokens."""
        return decode_sentence(self._record(index), content=False, truth=False)

    def _record(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"sentence {index} of {len(self)}")
        example = self._parser.parse_example(self._source[index])
        record = {name: example[name].decode() for name in ("sentence", "truth")}
        return record | {name: list(example[name]) for name in ("pictures", "masks")}


def open_source(directory: str, truth: bool = True) -> Records:
    """The sentences of the data set in a folder (or in the only data set below it).

    Args:
        truth: whether they come with their truth, which training does not need and which takes time to read.

    Raises:
        UserError: there is none, or more than one.
    """
    return Records(directory, truth)


def _find(directory: str) -> str:
    if (Path(directory) / "dataset_info.json").is_file():
        return str(directory)
    found = sorted(Path(directory).glob("**/dataset_info.json"))
    if len(found) != 1:
        what = "no data set" if not found else f"{len(found)} data sets"
        raise UserError(f"data.dir: {directory} holds {what}; name the folder of one (dataset_info.json)")
    return str(found[0].parent)
