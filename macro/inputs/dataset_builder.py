"""Builds data sets of sentences: ArrayRecord shards, written through TFDS without TensorFlow.

`SentenceBuilder` is the TFDS builder of every data set that our engines make. It makes the shards that are missing
(`shards.py`) in a folder beside the data set, which appears only when all of them are there: a build that was stopped
goes on where it was, and a half-built data set is never seen.
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

# (seed, start, count, options) -> sentences start ... start + count - 1 of the endless data set of that seed;
# options are the engine's own dataclass.
Make = Callable[[int, int, int, Any], Sequence[Sentence]]

SHARD = 256  # sentences in a shard: what a build can lose when it is stopped


class SentenceBuilder(dataset_builder.FileReaderBuilder, skip_registration=True):
    """A data set of sentences with one split. Subclasses set `name`, `make` and `VERSION`.

    Whoever makes its shards in another way overrides `make_shards`, and `key` where more goes into them.
    """

    make: Make
    split = "train"
    unit = "sentences"  # of what `num` are made

    def __init__(self, *, data_dir: str, seed: int = 0, num: int = 1, options: Any = None, **kwargs):
        """
        Args:
            data_dir: the data set lands in `<data_dir>/<name>/<version>`.
            seed, num: which sentences, and how many. options: handed to `make`.
        """
        self.seed, self.num, self.options = seed, num, options
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
        """Nothing is downloaded, but TFDS wants one; its own would look for checksums beside the code."""
        return tfds.download.DownloadManager(download_dir=self.shards.folder)

    def _log_download_bytes(self) -> None:
        """TFDS would speak of downloads on stdout; `ProgressBar` says what happens."""

    def _log_download_done(self) -> None:
        """As above."""

    def download_and_prepare(self) -> None:
        """Builds the data set, if it is not there: makes the shards that are missing, then lets TFDS gather them.

        Raises:
            UserError: not one sentence is left.
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
        """Links the shards to where TFDS wants them, in a folder that it lets appear when this is done.

        They keep their names aside too until then: a build that is stopped here makes none of them again.
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
        """Writes these shards, and gives the number of each once it is there."""
        for number in missing:
            places = self.shards.places(number)
            sentences = type(self).make(self.seed, places.start, len(places), self.options)
            if len(sentences) != len(places):
                raise ValueError(f"{self.name}: asked for the sentences {places}, got {len(sentences)}")
            self.shards.write(number, sentences, {})
            yield number

    def gathered(self, countdown: ProgressBar) -> None:
        """Called when all shards are there, before the data set appears; `countdown` has seen them come."""

    def why(self) -> str:
        """How an error goes on that says that no sentence came out."""
        return "; all were dropped"

    @property
    def shards(self) -> Shards:
        """The shards in the making, and where finished ones wait for the others."""
        folder = epath.Path(self.data_dir_root) / f"{self.name}.shards-{self.key}"
        return Shards(os.fspath(folder), self.num, SHARD)

    @property
    def key(self) -> str:
        """Differs where anything that a shard's bytes follow from does."""
        return hash_of(self.seed, self.num, self.options, str(self.VERSION))


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


def build(builder: type[SentenceBuilder], directory: str, seed: int, num: int, options: Any, **more) -> str:
    """Builds a data set, showing progress; returns its folder.

    Args:
        directory: the data set lands in `<directory>/<name>/<version>`, complete or not at all; one that is there
            already is kept. A build that was stopped goes on if it is called again.
        seed, num: which sentences, and how many. options: the engine's, how they are made. more: whatever else
            the builder takes.

    Raises:
        UserError: no sentences asked for, or a folder that cannot be written.
    """
    if num < 1:
        raise UserError(f"data.num: {num} sentences are no data set; ask for at least 1")
    try:
        data = builder(data_dir=directory, seed=seed, num=num, options=options, **more)
        data.download_and_prepare()
    except ImportError as error:  # for a bucket
        raise UserError(f"data.dir: {directory} cannot be reached ({error})") from error
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
