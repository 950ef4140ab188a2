"""From an experiment's config to batches: the data set is made if it is not there, read, packed.

    data = dict(name="scenes", num=20000, seed=0, dir="", workers=1, tokenizer="", **options of engine)
    packing = dict(text=..., vision=..., latent=..., samples=..., draws=..., window=..., buckets=...)
    dropout = dict(no_text=.1, no_image=.1, null=.1)
    tasks = ("compose", ...)

Read next: `macro/inputs/pipeline.py`, `macro/engines/procedural.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from macro.engines import procedural
from macro.inputs import records
from macro.inputs.packing import PackingConfig
from macro.inputs.pipeline import Pipeline
from macro.inputs.tokenizer import Tokenizer
from macro.models.variants import ModelConfig
from macro.sampling.load import packing_of
from macro.utils.config import section
from macro.utils.errors import UserError

# Name -> (options of the engine, what makes samples, version of what it makes), as `records.ensure` takes them.
ENGINES = {"scenes": (procedural.Options, procedural.samples, procedural.VERSION)}


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


def tokenizer_of(config, model: ModelConfig) -> Tokenizer:
    """The tokenizer that `config.data.tokenizer` names; UserError if the model has fewer ids than it."""
    path = data_config(config)[0].tokenizer
    tokenizer = Tokenizer.from_file(path) if path else Tokenizer.demo()
    if tokenizer.vocab_size > model.llm.vocab:
        raise UserError(
            f"config.model: has room for {model.llm.vocab} ids, but the tokenizer {tokenizer.vocab_size}; "
            "set config.model.llm.vocab to at least that"
        )
    return tokenizer


def packing_config(config, model: ModelConfig) -> PackingConfig:
    """How sentences become rows for this model: `config.packing`, condition dropout, and the tasks' names."""
    training = config.dropout.to_dict() | {"tasks": tuple(config.tasks)}
    return packing_of(model, config.packing.to_dict() | training)


def stored(config) -> records.Records:
    """The samples of `config.data`, which are made first if they are not there yet."""
    data, options = data_config(config)
    _, make, version = ENGINES[data.name]
    folder = records.ensure(data.name, make, version, data.seed, data.num, options, data.dir or None)
    return records.open_source(folder, truth=False)


def batches(config, source: Sequence, tokenizer: Tokenizer, packing: PackingConfig) -> Pipeline:
    """This process's share of the batches, without end."""
    workers = data_config(config)[0].workers
    place = jax.process_index(), jax.process_count()
    return Pipeline(source, tokenizer, packing, config.seed, config.batch_size, *place, workers)
