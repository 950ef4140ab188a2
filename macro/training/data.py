"""From an experiment's config to batches: the data set is made if it is not there, read, packed.

    data = dict(name="scenes", num=20000, seed=0, dir="", workers=1, tokenizer="", **options of engine)
    packing = dict(text=..., vision=..., latent=..., samples=..., draws=..., window=..., buckets=...)
    dropout = dict(no_text=.1, no_image=.1, null=.1)
    tasks = ("compose", ...)

Sizes that follow from the model (patches, position tables, binding) are taken from it, so that config and
model cannot disagree.
Read next: `macro/inputs/pipeline.py`, `macro/engines/procedural.py`.
"""

import dataclasses
from typing import Any

from macro.engines import procedural
from macro.inputs import records
from macro.inputs.packing import PackingConfig
from macro.inputs.pipeline import Pipeline
from macro.inputs.tokenizer import Tokenizer
from macro.models.variants import ModelConfig
from macro.utils.config import section
from macro.utils.errors import UserError

# Name -> (options of the engine, what makes samples); both as `records.ensure` takes them.
ENGINES = {"scenes": (procedural.Options, procedural.samples)}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The part of `config.data` that says which data and how it is read.

    `num` samples of `seed` are stored under `dir`, or in the user's cache if that is empty. `workers`
    processes read ahead; 0 reads in this one. `tokenizer` is a Hugging Face tokenizer.json; empty for ours.
    """

    name: str
    num: int
    seed: int = 0
    dir: str = ""
    workers: int = 1
    tokenizer: str = ""


def data_config(config) -> tuple[DataConfig, Any]:
    """`config.data`, read and checked: (which data, options of its engine)."""
    values = config.data.to_dict()
    own = {f.name: values.pop(f.name) for f in dataclasses.fields(DataConfig) if f.name in values}
    data = section(DataConfig, own, "data")
    if data.name not in ENGINES:
        raise UserError(f"config.data.name={data.name!r}: there is {', '.join(ENGINES)}")
    return data, section(ENGINES[data.name][0], values, "data")


def tokenizer_of(config) -> Tokenizer:
    """The tokenizer that `config.data.tokenizer` names."""
    path = data_config(config)[0].tokenizer
    return Tokenizer.from_file(path) if path else Tokenizer.demo()


def packing_config(config, model: ModelConfig) -> PackingConfig:
    """How sentences become rows for this model."""
    of_model = {
        "patch": model.vision.patch,
        "vision_side": model.vision.side,
        "latent_stride": model.pixels_per_token,
        "latent_side": model.latent_side,
        "binding": model.binding,
    }
    for key in of_model:
        if key in config.packing:
            raise UserError(f"config.packing.{key}: follows from config.model; leave it out")
    values = config.packing.to_dict() | config.dropout.to_dict() | {"tasks": tuple(config.tasks)}
    return section(PackingConfig, values | of_model, "packing")


def batches(config, model: ModelConfig, process_index: int = 0, process_count: int = 1) -> Pipeline:
    """This process's batches without end; builds the data set first where it is not there yet.

    Raises:
      UserError: a mistake in `data`, `packing`, `dropout`, `tasks` or `batch_size`, or a vocabulary that the
        model has no room for.
    """
    data, options = data_config(config)
    tokenizer = tokenizer_of(config)
    if tokenizer.vocab_size > model.llm.vocab:
        raise UserError(
            f"config.data.tokenizer: has {tokenizer.vocab_size} ids, but the model only {model.llm.vocab}; "
            f"set config.model.llm.vocab to at least {tokenizer.vocab_size}"
        )
    packing = packing_config(config, model)
    _, make = ENGINES[data.name]
    folder = records.ensure(data.name, make, data.seed, data.num, options, data.dir or None)
    return Pipeline(
        records.open_source(folder),
        tokenizer,
        packing,
        config.seed,
        config.batch_size,
        process_index,
        process_count,
        data.workers,
    )
