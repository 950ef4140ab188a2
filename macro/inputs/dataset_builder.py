"""Builds data sets of sentences: ArrayRecord shards, written through TFDS without TensorFlow.

`SentenceBuilder` is the TFDS builder of every data set that our engines make. It makes the missing
shards (`shards.py`) in a folder beside the data set. The data set appears only when all shards are complete: a stopped
build resumes where it was, and no one sees a half-built data set.
Read next: `macro/inputs/sources.py` (reads them), `macro/inputs/serialization.py`, `data/builders.py`.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_builder, registered

from macro.inputs.shards import FEATURES, Shards, link
from macro.sentence.spans import Sentence
from macro.utils.errors import UserError
from macro.utils.log import ProgressBar
from macro.utils.streams import split_seed

# (seed, start, count, options) -> sentences start ... start + count - 1 of the infinite data set of that seed;
# options is the engine's own dataclass.
Make = Callable[[int, int, int, Any], Sequence[Sentence]]

SHARD = 256  # sentences per shard: the most work that a stopped build loses


class SentenceBuilder(dataset_builder.FileReaderBuilder, skip_registration=True):
    """A data set of sentences with one split. Subclasses set `name`, `make` and `VERSION`.

    A builder that makes its shards differently overrides `make_shards`, and `key` if they depend on more inputs.
    """

    make: Make
    split = "train"
    unit = "sentences"  # what `num` counts

    def __init__(self, *, data_dir: str, seed: int = 0, num: int = 1, options: Any = None, **kwargs):
        """
        Args:
            data_dir: the data set is written to `<data_dir>/<name>/<version>`.
            seed, num: of the sentences: random seed and number. options: passed to `make`.

        Raises:
            UserError: the seed is negative, or one of those that evaluations use.
        """
        self.seed, self.num, self.options = seed, num, options
        self.stream_seed = split_seed(seed, self.split)  # that all random numbers follow from
        super().__init__(data_dir=data_dir, file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        about = f"Sentences with images in them, seed {getattr(self, 'seed', 0)}. Made by macro's engines."
        return tfds.core.DatasetInfo(
            builder=self,
            description=about,
            features=tfds.features.FeaturesDict(FEATURES),
            disable_shuffling=True,
        )

    def _make_download_manager(self, download_dir, download_config):
        """A manager that downloads nothing; TFDS requires one, and its default looks for checksum files."""
        return tfds.download.DownloadManager(download_dir=self.shards.folder)

    def _log_download_bytes(self) -> None:
        """Silences the message of TFDS about downloads; `ProgressBar` shows progress instead."""

    def _log_download_done(self) -> None:
        """As above."""

    def download_and_prepare(self) -> None:
        """Builds the data set unless it exists: makes the missing shards, then lets TFDS assemble them.

        Raises:
            UserError: every sentence was dropped.
        """
        if not epath.Path(self.data_dir).exists():
            shards = self.shards
            missing = shards.missing()
            countdown = ProgressBar(self.name, self.num, self.unit)
            countdown.skip(self.num - sum(len(shards.places(number)) for number in missing))
            for number in self.make_shards(missing):
                countdown.done(len(shards.places(number)))
            self.gathered(countdown)
        super().download_and_prepare()
        self.shards.clear()

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        """Links the shards into the temporary folder of TFDS, which renames it when this is done.

        The originals stay in place until then, so a build stopped here does not make them again.
        """
        del dl_manager, download_config
        shards = self.shards
        lengths = {number: shards.about(number)["samples"] for number in range(len(shards))}
        filled = [number for number, length in lengths.items() if length]
        if not filled:
            raise UserError(f"{self.name}: nothing is left of {self.num:,} {self.unit}{self.why()}")
        template, size = self._get_filename_template(self.split), 0
        for place, number in enumerate(filled):
            size += shards.path(number).stat().length
            link(shards.path(number), template.sharded_filepath(shard_index=place, num_shards=len(filled)))
        split = tfds.core.SplitInfo(
            name=self.split,
            shard_lengths=[lengths[number] for number in filled],
            num_bytes=size,
            filename_template=template,
        )
        self.info.set_splits(tfds.core.splits.SplitDict([split]))

    def make_shards(self, missing: Sequence[int]) -> Iterator[int]:
        """Writes these shards, yielding the number of each when it is complete."""
        for number in missing:
            places = self.shards.places(number)
            sentences = type(self).make(self.stream_seed, places.start, len(places), self.options)
            if len(sentences) != len(places):
                raise ValueError(f"{self.name}: asked for the sentences {places}, got {len(sentences)}")
            self.shards.write(number, sentences, {})
            yield number

    def gathered(self, countdown: ProgressBar) -> None:
        """Called when all shards are complete, before the data set appears; `countdown` has counted them."""

    def why(self) -> str:
        """The end of the error message for a build without any sentence: the reason."""
        return "; all were dropped"

    @property
    def shards(self) -> Shards:
        """The shards of this build and the folder that holds them until all are complete."""
        folder = epath.Path(self.data_dir_root) / f"{self.name}.shards-{self.key}"
        return Shards(os.fspath(folder), self.num, SHARD)

    @property
    def key(self) -> str:
        """A hash of everything that determines the bytes of a shard."""
        return hash_of(self.seed, self.num, self.options, str(self.VERSION))


def builder_class(name: str, make: Make, version: str) -> type[SentenceBuilder]:
    """A builder of the data set `name`; `version` must change whenever the output of `make` changes."""
    with registered.skip_registration():
        members = {"name": name, "make": staticmethod(make), "VERSION": tfds.core.Version(version)}
        return type(name, (SentenceBuilder,), members)


def prepare(
    name: str, directory: str, seed: int, num: int, make: Make, options: Any, version: str = "1.0.0"
) -> str:
    """Builds the data set `name` with `make`; see `build`."""
    return build(builder_class(name, make, version), directory, seed, num, options)


def build(builder: type[SentenceBuilder], directory: str, seed: int, num: int, options: Any, **more) -> str:
    """Builds a data set, showing progress; returns its folder.

    Args:
        directory: the data set is written to `<directory>/<name>/<version>`, whole or not at all; an existing one is
            kept. Calling this again resumes a stopped build.
        seed, num: random seed and number of the sentences. options: the engine's. more: further arguments of the
            builder.

    Raises:
        UserError: `num` is below 1, or the folder cannot be written.
    """
    if num < 1:
        raise UserError(f"data.num: {num} sentences are no data set; ask for at least 1")
    try:
        data = builder(data_dir=directory, seed=seed, num=num, options=options, **more)
        data.download_and_prepare()
    except ImportError as error:  # a bucket's file system is missing
        raise UserError(f"data.dir: {directory} cannot be reached ({error})") from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"data.dir: {directory} cannot be written ({reason}); name another folder") from error
    return str(data.data_dir)


def ensure(
    name: str, make: Make, version: str, seed: int, num: int, options: Any, directory: str | None = None
) -> str:
    """The folder of a data set, which is built first if it does not exist.

    Args:
        version: of the output of `make`; a data set of another version is left as it is, and a new one built.
        directory: None is a folder in the user's cache, named by a hash of seed, num and options.
    """
    if directory is None:
        key = hash_of(seed, num, options)
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        directory = os.path.join(cache, "macro", "data", f"{name}-{key}")
    return prepare(name, directory, seed, num, make, options, version)


def hash_of(*values) -> str:
    """A hash, ten characters long, of JSON-like values and dataclasses of them."""
    text = json.dumps(values, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
