"""The TFDS builders of the data sets that engines make; `data/build.py` is their command line.

    builder_of("music")(data_dir=..., seed=0, num=1000).download_and_prepare()

Beside the data set lie `<data_dir>/<name>-summary.json` and `<name>-dead.jsonl`, what was dropped and why; inside it,
`recipe.json` records what it was built from. Read next: `shards.py`, `macro/inputs/dataset_builder.py`.
"""

import functools
import json
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from data.providers import NONE, procedural
from data.runners import Runner, local
from data.shards import ProviderSpec, Recipe, load
from data.summary import summarise
from macro.inputs.dataset_builder import SentenceBuilder, hash_of
from macro.inputs.shards import Shards, whole_anywhere
from macro.utils.config import hash_fields
from macro.utils.errors import UserError
from macro.utils.log import ProgressBar

SHARD = 64


class EngineBuilder(SentenceBuilder, skip_registration=True):
    """A data set made by an engine. Subclasses set `name`, `engine` ("module:NAME") and `VERSION`, the engine's.

    `needs_provider`: False for an engine that needs no provider.
    """

    engine: str
    needs_provider = True
    unit = "places"

    def __init__(
        self,
        *,
        data_dir: str,
        seed: int = 0,
        num: int = 1000,
        options: Any = None,
        provider: ProviderSpec | None = None,
        shard: int = SHARD,
        split: str = "train",
        workers: int = 1,
        runner: Runner = local,
        **kwargs,
    ):
        """
        Args:
            data_dir: the data set lands in `<data_dir>/<name>/<version>`.
            seed, num: indices 0 .. num - 1 of `seed`; an index whose every attempt was dropped has no sample.
            options: the engine's; None for its defaults. provider: answers its stages; None for the
                procedural provider.
            shard: indices that are built together as one batch, and lost together when a build is stopped.
            workers, runner: number of processes, and what runs the shards in them; the bytes are the same.
        """
        self.split, self._shard, self._runner, self.workers = split, shard, runner, workers
        self._provider = provider or (procedural() if self.needs_provider else NONE)
        options = load(self.engine).options() if options is None else options
        super().__init__(data_dir=data_dir, seed=seed, num=num, options=options, **kwargs)

    def download_and_prepare(self) -> None:
        """Builds the data set unless it exists already.

        Raises:
            UserError: a different one is there; the folder cannot be written; every candidate was dropped.
        """
        folder, ours = epath.Path(self.data_dir), json.loads(self._recipe_text())
        if folder.exists():
            recipe = folder / "recipe.json"
            theirs = json.loads(recipe.read_text()) if recipe.exists() else {}
            if theirs != ours:
                raise UserError(f"--out: {folder} is another data set{_difference(theirs, ours)}; name another folder")
        super().download_and_prepare()

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        with whole_anywhere(epath.Path(self.data_dir) / "recipe.json") as half:
            half.write_text(self._recipe_text(), "utf-8")

    def make_shards(self, missing: Sequence[int]) -> Iterator[int]:
        return self._runner(self.recipe, missing, self.workers)

    def gathered(self, countdown: ProgressBar) -> None:
        """Writes the summary and the dead letters, also if every candidate was dropped."""
        steps = [step.name for step in load(self.engine).steps]
        summary = summarise(self.name, self.shards, steps, countdown)
        about = epath.Path(self.data_dir_root)
        with whole_anywhere(about / f"{self.name}-dead.jsonl") as half, half.open("wb") as file:
            for number in range(len(self.shards)):
                file.write(self.shards.path(number, "dead.jsonl").read_bytes())
        with whole_anywhere(about / f"{self.name}-summary.json") as half:
            half.write_text(json.dumps(summary, indent=2) + "\n", "utf-8")

    def why(self) -> str:
        dropped = Counter(one["step"] for number in range(len(self.shards)) for one in self.shards.dead(number))
        most = ", ".join(f"{name} {count:,}" for name, count in dropped.most_common(3))
        return f"; dropped most by {most}; {self.name}-dead.jsonl says why each"

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.engine, self.options, self._provider, self.stream_seed, self.shards)

    @property
    def shards(self) -> Shards:
        return Shards(super().shards.folder, self.num, self._shard)

    @property
    def key(self) -> str:
        return hash_of(self._recipe_text())

    def _recipe_text(self) -> str:
        """Everything that determines the bytes, as JSON."""
        recipe = {
            "engine": f"{self.name} {self.VERSION}",
            "options": self.options,
            "provider": {"name": self._provider.name, "options": self._provider.options},
            "seed": self.seed,
            "num": self.num,
            "shard": self._shard,
            "split": self.split,
        }
        return json.dumps(recipe, indent=2, default=hash_fields) + "\n"


def _difference(theirs: dict, ours: dict) -> str:
    """`, of seed 0, not 1`: the first field in which two recipes differ."""
    key = next((key for key in ours if theirs and theirs.get(key) != ours[key]), None)
    if key is None:
        return ", which was not built with data.build"
    plain = isinstance(ours[key], int | str)
    return f", of {key} {theirs.get(key)}, not {ours[key]}" if plain else f", made with other {key}"


def builder_of(dataset: str) -> type[EngineBuilder]:
    """The TFDS builder of a data set of `data.build.DATASETS`.

    Raises:
        UserError: there is no such data set.
    """
    from data.build import DATASETS
    from data.macrodata.layout import LayoutBuilder

    if dataset not in DATASETS:
        raise UserError(f"{dataset!r} is no data set of ours; there are {', '.join(DATASETS)}")
    return engine_builder(DATASETS[dataset], LayoutBuilder if dataset == "macrodata" else EngineBuilder)


@functools.cache
def engine_builder(engine: str, base: type[EngineBuilder] = EngineBuilder) -> type[EngineBuilder]:
    """The TFDS builder of an engine, "module:NAME"; name, version and whether it needs a provider are the engine's."""
    made = load(engine)
    version = tfds.core.Version(made.version)
    members = {"name": made.name, "engine": engine, "needs_provider": made.needs_provider, "VERSION": version}
    members["__module__"] = __name__
    return types.new_class(made.name, (base,), {"skip_registration": True}, lambda namespace: namespace.update(members))
