"""Loads a weights file as a pipeline.

The file holds the model's sizes, and in its notes the parts of the experiment's config that sampling needs:

    notes["config"] = {"packing": ..., "sampling": ..., "data": {"tokenizer": ..., "arrangement": ...}}

Read next: `macro/sampling/pipeline.py`, `macro/models/checkpoints/weights.py`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from macro.inputs.packing import PackingConfig
from macro.models.checkpoints import weights
from macro.models.checkpoints.lora import merge_file
from macro.models.variants import ModelConfig
from macro.parallel.mesh import make_mesh, parallel_config
from macro.sampling.compatibility import check_record, find_tokenizer, fitted
from macro.sampling.options import read_options
from macro.sampling.pipeline import Pipeline
from macro.utils.config import from_config
from macro.utils.errors import UserError
from macro.utils.renamed_keys import with_current_keys

ASSETS = Path(__file__).parents[1] / "assets"


def load(
    name_or_path: str | os.PathLike = "demo",
    config: Mapping | ConfigDict | None = None,
    lora: str | os.PathLike | None = None,
) -> Pipeline:
    """Loads a model as a `Pipeline`.

    Args:
        name_or_path: a model that comes with the package, such as "demo", or a .safetensors file.
        config: an experiment's config that replaces the one in the file; fields that its `packing` omits are taken from
            the file. Its `model` may set `dtype`, the type that the model runs in.
        lora: adapters to merge: a lora.safetensors from `macro.train`, or a PEFT folder.

    Raises:
        UserError: the file is missing or holds no whole model, there is no tokenizer, or the config does not fit.
    """
    path = _find(name_or_path)
    file = weights.reader(path)
    model, notes = weights.config_of(file), weights.notes_of(file)
    params = weights.views(file)
    for part in ("composer", "vae"):
        if part not in params:
            raise UserError(f"{path}: holds no {part}; use the model.safetensors that a whole training wrote")
    trained = _current(notes["config"]) if "config" in notes else None
    values = trained if config is None else _plain(config)
    if values is None:
        raise UserError(f"{path}: does not say how it was trained; hand over the experiment's config as well")
    if config is not None:
        model = fitted(path, model, values.get("model", {}))
    if model.binding and weights.BINDING not in params["composer"]:
        params["composer"][weights.BINDING] = np.zeros((model.subjects + 1, model.llm.width), np.float32)
    if lora is not None:
        params = merge_file(params, lora)
    data = values.get("data", {})
    tokenizer = find_tokenizer(path, data.get("tokenizer", ""), trained, model)
    options = read_options(values.get("sampling", {}))
    packing = _packing(model, values, trained)
    if "trained_with" in notes:
        check_record(path, notes["trained_with"], tokenizer, packing, options.guidance.contexts)
    mesh = make_mesh(parallel_config(values)) if jax.device_count() > 1 else None
    return Pipeline(params, model, tokenizer, packing, options, mesh)


def _plain(config: Mapping | ConfigDict) -> dict:
    return config.to_dict() if isinstance(config, ConfigDict) else dict(config)


def _packing(model: ModelConfig, values: Mapping, trained: Mapping | None) -> PackingConfig:
    """How prompts are packed: by the config, and for fields that it omits (or sets to None) as in training.

    Weights without either (imported BAGEL) use BAGEL's free sizes, and both copies of a reference.
    """
    own = (trained or {}).get("packing") or {"buckets": None, "reference_vae": True}
    given = dict(own) | {key: value for key, value in values.get("packing", {}).items() if value is not None}
    for config in (values, trained or {}):
        if "arrangement" in config.get("data", {}):
            return packing_of(model, given | {"arrangement": config["data"]["arrangement"]})
    return packing_of(model, given)


def _current(stored: Mapping) -> dict:
    """The config in a file's notes, converted to the current keys."""
    values = with_current_keys(stored)
    if "steps" in stored.get("sampling", {}):  # written by an earlier version, which had these defaults
        values["sampling"] = {"use_planner": True, "cfg_text_scale": 4.0, "cfg_overall_scale": 1.5} | values["sampling"]
    return values


def packing_of(model: ModelConfig, values: Mapping) -> PackingConfig:
    """The model's `PackingConfig`: `values`, plus the fields that follow from the model's sizes."""
    sizes = {
        "patch": model.vision.patch,
        "vision_side": model.vision.side,
        "latent_stride": model.pixels_per_token,
        "latent_side": model.latent_side,
        "binding": model.binding,
    }
    return from_config(PackingConfig, dict(values) | sizes, "packing")


def _find(name_or_path: str | os.PathLike) -> Path:
    shipped = ASSETS / f"{name_or_path}.safetensors"
    if Path(name_or_path).is_file() or not shipped.is_file():
        return Path(name_or_path)
    return shipped
