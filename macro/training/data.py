"""From an experiment's config to batches: makes the data set if it does not exist, reads it and packs it.

    data = dict(name="scenes", num=20000, seed=0, dir="", workers=1, tokenizer="", **options of the engine)
    data = dict(name="files", dir="macrodata", mix=(("customization/train/1-3", 2.0), ...), workers=8, ...)
    data = dict(name="records", dir="built", mix=(("music", 2.0), ("edit", 1.0)), ...)
    packing = dict(text=..., vision=..., latent=..., samples=..., noise_draws=..., window=..., buckets=...)
    cfg_dropout = dict(mode="joint", no_text=.1, no_image=.1, null=.1, per_item=(.1, .3, .3))
    tasks = ("compose", ...)

Read next: `macro/inputs/loader.py`, `macro/engines/scenes.py`, `macro/inputs/sources.py`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from macro.engines import scenes as scenes_engine
from macro.inputs.conditioning import CfgDropout
from macro.inputs.dataset_builder import ensure
from macro.inputs.loader import DataLoader
from macro.inputs.packing import PackingConfig
from macro.inputs.sources import JsonFolderSource, MixtureSource, RecordSource, open_source
from macro.inputs.tokenizer import Tokenizer
from macro.models.checkpoints import weights
from macro.models.token_selection import MAX_TRAINING_IMAGES, training_selection
from macro.models.variants import ModelConfig
from macro.parallel.mesh import my_rows, nearest_multiples, parallel_config
from macro.sampling.compatibility import check_tokenizer
from macro.sampling.load import packing_of
from macro.utils.config import from_config
from macro.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The part of `config.data` that names the data set and how it is read.

    An engine's data, `num` samples of `seed`, is stored under `dir`, or in the user's cache if that is empty; "files"
    and "records" are read from `dir`. `workers` processes read ahead; 0 reads in this one. `tokenizer` is a Hugging
    Face tokenizer.json; empty for the built-in one. `arrangement`: order of a prompt's images (`PackingConfig`).
    """

    name: str
    num: int = 0
    seed: int = 0
    dir: str = ""
    workers: int = 1
    tokenizer: str = ""
    arrangement: str = "as_given"


@dataclasses.dataclass(frozen=True)
class MixConfig:
    """The rest of `config.data` where its name is "records" or "files": `mix` are (folder below `dir`, weight).

    Each folder holds a data set that `python -m data.build` made, or JSON files of MacroData's or INSET's format.
    """

    mix: tuple = (("", 1.0),)

    def __post_init__(self):
        if not self.mix:
            raise UserError("config.data.mix: is empty; name a folder and a weight")
        for part in self.mix:
            if not (isinstance(part, tuple | list) and [type(value) for value in part] in ([str, int], [str, float])):
                raise UserError(f"config.data.mix: {part!r} must be a folder and a weight, such as ('samples', 1.0)")
            if not 0 < part[1] < float("inf"):
                raise UserError(f"config.data.mix: {part!r} must have a weight above 0")


def _scenes(data: DataConfig, options: scenes_engine.Options) -> RecordSource:
    folder = ensure(
        data.name, scenes_engine.samples, scenes_engine.VERSION, data.seed, data.num, options, data.dir or None
    )
    return open_source(folder, truth=False)


def _files(data: DataConfig, options: MixConfig) -> MixtureSource:
    return _mixed(data, options, JsonFolderSource)


def _records(data: DataConfig, options: MixConfig) -> MixtureSource:
    return _mixed(data, options, lambda folder: open_source(str(folder), truth=False))


def _mixed(data: DataConfig, options: MixConfig, read: Callable[[Path], Sequence]) -> MixtureSource:
    if not data.dir:
        raise UserError("config.data.dir: is empty; name the folder of your samples (--config.data.dir=...)")
    folders, weights = zip(*options.mix, strict=True)
    return MixtureSource([read(Path(data.dir) / folder) for folder in folders], weights)


# Name -> (the rest of its `config.data`, a function that opens the samples; an engine makes them first).
SOURCES = {
    "scenes": (scenes_engine.Options, _scenes),
    "records": (MixConfig, _records),
    "files": (MixConfig, _files),
}


def data_config(config) -> tuple[DataConfig, Any]:
    """`config.data`, read and checked: (DataConfig, the options of that data set)."""
    values = config.data.to_dict()
    own = {f.name: values.pop(f.name) for f in dataclasses.fields(DataConfig) if f.name in values}
    data = from_config(DataConfig, own, "data")
    if data.name not in SOURCES:
        raise UserError(f"config.data.name={data.name!r}: there is {', '.join(SOURCES)}")
    return data, from_config(SOURCES[data.name][0], values, "data")


def tokenizer_of(config, model: ModelConfig) -> Tokenizer:
    """The tokenizer that `config.data.tokenizer` names, the built-in one where it is empty.

    Raises:
        UserError: the model has fewer ids than the tokenizer, or `config.init_from.composer` was trained with another.
    """
    path, start = data_config(config)[0].tokenizer, config.init_from.get("composer", "")
    notes = weights.notes_of(weights.reader(start)) if Path(start).is_file() else {"config": {}}
    if not path and (notes.get("config") is None or notes["config"].get("data", {}).get("tokenizer")):
        raise UserError(
            f"config.data.tokenizer: is empty, but {start} was not trained with the demo's tokenizer; name its "
            "tokenizer.json"
        )
    tokenizer = Tokenizer.from_file(path) if path else Tokenizer.demo()
    if "trained_with" in notes:
        check_tokenizer(Path(start), notes["trained_with"], tokenizer)
    if tokenizer.vocab_size > model.llm.vocab:
        raise UserError(
            f"config.model: has room for {model.llm.vocab} ids, but the tokenizer {tokenizer.vocab_size}; "
            "set config.model.llm.vocab to at least that"
        )
    return tokenizer


def packing_config(config, model: ModelConfig) -> PackingConfig:
    """How sentences become packed sequences for this model: `config.packing`, condition dropout, task names.

    Raises:
        UserError: buckets beyond the model's position table, or a stream that `config.parallel.sequence` does not
            divide.
    """
    dropout = from_config(CfgDropout, config.cfg_dropout, "cfg_dropout")
    training = {"cfg_dropout": dropout, "tasks": tuple(config.tasks), "arrangement": data_config(config)[0].arrangement}
    if training_selection(config) is not None:
        training["max_images"] = MAX_TRAINING_IMAGES
    packing = packing_of(model, config.packing.to_dict() | training)
    if packing.buckets is None:
        raise UserError("config.packing.buckets: is None; training needs (height, width, slots) for its pixel slots")
    ways = parallel_config(config).sequence
    for stream in ("text", "vision", "latent"):
        tokens = getattr(packing, stream)
        if tokens % ways:
            raise UserError(
                f"config.packing.{stream}={tokens} does not divide over config.parallel.sequence={ways} devices; "
                f"take {nearest_multiples(tokens, ways)}"
            )
    return packing


def stored(config) -> Sequence:
    """The samples of `config.data`; an engine makes them first if they do not exist."""
    data, options = data_config(config)
    return SOURCES[data.name][1](data, options)


def batches(config, source: Sequence, tokenizer: Tokenizer, packing: PackingConfig, mesh: Mesh) -> DataLoader:
    """This process's share of an endless stream of batches: the packed sequences that its devices hold."""
    workers = data_config(config)[0].workers
    rows = my_rows(config.batch_size, mesh)
    return DataLoader(source, tokenizer, packing, config.seed, config.batch_size, rows, workers)
