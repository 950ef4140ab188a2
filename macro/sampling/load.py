"""From a weights file to a pipeline.

The file carries the model's sizes, and in its notes the parts of the experiment's config that sampling needs:

    notes["config"] = {"packing": ..., "sampling": ..., "data": {"tokenizer": ...}}

Read next: `macro/sampling/pipeline.py`, `macro/models/weights.py`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import jax
from ml_collections import ConfigDict

from macro.inputs.packing import PackingConfig
from macro.inputs.tokenizer import Tokenizer
from macro.models import weights
from macro.models.checkpoints.lora import merge_file
from macro.models.variants import ModelConfig
from macro.parallel.mesh import make_mesh, parallel_config
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
    """Makes a model ready to compose.

    Args:
        name_or_path: a model that comes with the package, such as "demo", or a .safetensors file.
        config: an experiment's config to be used instead of the one in the file.
        lora: adapters to be merged in: a lora.safetensors that `macro.train` wrote, or a folder of PEFT's.

    Raises:
        UserError: no such file, or one that holds no whole model, or a config that does not fit.
    """
    path = _find(name_or_path)
    params, model, notes = weights.load(path)
    for part in ("composer", "vae"):
        if part not in params:
            raise UserError(f"{path}: holds no {part}; use the model.safetensors that a whole training wrote")
    if lora is not None:
        params = merge_file(params, lora)
    values = config
    if config is None and "config" in notes:
        values = _current(notes["config"])
    if values is None:
        raise UserError(f"{path}: does not say how it was trained; hand over the experiment's config as well")
    given = dict(values.get("data", {})).get("tokenizer") or _imported_tokenizer(path)
    tokenizer = Tokenizer.from_file(given) if given else Tokenizer.demo()
    if tokenizer.vocab_size > model.llm.vocab:
        raise UserError(
            f"{path}: has room for {model.llm.vocab} ids, but the tokenizer {tokenizer.vocab_size}"
        )
    packing = packing_of(model, dict(values.get("packing", {})))
    options = read_options(values.get("sampling", {}))
    mesh = make_mesh(parallel_config(values)) if jax.device_count() > 1 else None
    return Pipeline(params, model, tokenizer, packing, options, mesh)


def _current(stored: Mapping) -> dict:
    """The config in a file's notes, by the keys of now."""
    values = with_current_keys(stored)
    if "steps" in stored.get("sampling", {}):  # an earlier version, whose defaults these were
        values["sampling"] = {"use_planner": True, "cfg_text_scale": 4.0, "cfg_overall_scale": 1.5} | values["sampling"]
    return values


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


def _imported_tokenizer(path: Path) -> Path | None:
    """The tokenizer that came with a BAGEL checkpoint (`macro.convert` lays it beside the weights)."""
    beside = path.parent / "bagel" / "tokenizer.json"
    return beside if beside.is_file() else None


def _find(name_or_path: str | os.PathLike) -> Path:
    shipped = ASSETS / f"{name_or_path}.safetensors"
    if Path(name_or_path).is_file() or not shipped.is_file():
        return Path(name_or_path)
    return shipped
