"""From a weights file to a pipeline.

The file carries the model's sizes, and in its notes the parts of the experiment's config that sampling needs:

    notes["config"] = {"packing": ..., "sampling": ..., "data": {"tokenizer": ..., "arrangement": ...}}

`sampling` may name a `mode`: "plan" (thought and layout first; the default) or "bagel" (BAGEL's own inference).
Read next: `macro/sampling/pipeline.py`, `macro/sampling/bagel/pipeline.py`, `macro/models/weights.py`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from macro.inputs.packing import PackingConfig
from macro.models import weights
from macro.models.checkpoints.lora import merge_file
from macro.models.variants import ModelConfig
from macro.parallel.mesh import make_mesh, parallel_config
from macro.sampling.bagel.options import BagelOptions, read_options
from macro.sampling.bagel.pipeline import BagelPipeline
from macro.sampling.compatibility import check_record, find_tokenizer, fitted
from macro.sampling.pipeline import Pipeline
from macro.sampling.settings import Settings, read_settings
from macro.utils.config import from_config
from macro.utils.errors import UserError
from macro.utils.renamed_keys import with_current_keys

ASSETS = Path(__file__).parents[1] / "assets"
# mode -> what draws in it, and how its part of the config is read
MODES = {"plan": (Pipeline, read_settings), "bagel": (BagelPipeline, read_options)}


def load(
    name_or_path: str | os.PathLike = "demo",
    config: Mapping | ConfigDict | None = None,
    lora: str | os.PathLike | None = None,
) -> Pipeline | BagelPipeline:
    """Makes a model ready to compose.

    Args:
        name_or_path: a model that comes with the package, such as "demo", or a .safetensors file.
        config: an experiment's config to be used instead of the one in the file; what its `packing` leaves out is as
            in the file. Its `model` may say `dtype`, the type that the model runs in.
        lora: adapters to be merged in: a lora.safetensors that `macro.train` wrote, or a folder of PEFT's.

    Raises:
        UserError: no such file, one that holds no whole model or no tokenizer, or a config that does not fit it.
    """
    path = _find(name_or_path)
    file = weights.reader(path)
    model, notes = weights.config_of(file), weights.notes_of(file)
    params = weights.views(file)
    for part in ("composer", "vae"):
        if part not in params:
            raise UserError(f"{path}: holds no {part}; use the model.safetensors that a whole training wrote")
    trained = with_current_keys(notes["config"]) if "config" in notes else None
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
    kind, settings = sampling_of(values.get("sampling", {}))
    packing = _packing(model, values, trained)
    if "trained_with" in notes:
        check_record(path, notes["trained_with"], tokenizer, packing, settings.contexts)
    mesh = make_mesh(parallel_config(values)) if jax.device_count() > 1 else None
    return kind(params, model, tokenizer, packing, settings, mesh)


def _plain(config: Mapping | ConfigDict) -> dict:
    return config.to_dict() if isinstance(config, ConfigDict) else dict(config)


def _packing(model: ModelConfig, values: Mapping, trained: Mapping | None) -> PackingConfig:
    """How prompts are packed: by the config, and in what it leaves out as the weights were trained.

    Weights that came without sizes for their images (imported BAGEL) keep BAGEL's free sizes.
    """
    given = {"buckets": None} | dict((trained or {}).get("packing", {})) | dict(values.get("packing", {}))
    for config in (values, trained or {}):
        if "arrangement" in config.get("data", {}):
            return packing_of(model, given | {"arrangement": config["data"]["arrangement"]})
    return packing_of(model, given)


def sampling_of(
    values: Mapping | ConfigDict,
) -> tuple[type[Pipeline] | type[BagelPipeline], Settings | BagelOptions]:
    """`config.sampling`, read and checked: what draws, and the settings to give it."""
    values = dict(values)
    mode = values.pop("mode", "plan")
    if mode not in MODES:
        raise UserError(f"config.sampling.mode={mode!r}: must be one of {', '.join(MODES)}")
    kind, read = MODES[mode]
    return kind, read(values)


def packing_of(model: ModelConfig, values: Mapping) -> PackingConfig:
    """How this model's sentences are packed: what it was trained with, and what follows from its sizes."""
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
