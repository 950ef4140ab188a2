"""The start of every objective: the model that its config names, and parts of the parameters read from files.

config.model = {"variant": "XS/128", ...}           macro/models/variants.py
config.init_from = {"vae": "model.safetensors"}     part of the parameters -> file to read it from
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Array

from macro.models import variants
from macro.models.checkpoints import weights
from macro.models.variants import ModelConfig
from macro.utils import tree
from macro.utils.errors import UserError


def model_config(config) -> ModelConfig:
    """The model that an experiment's configuration names (`config.model`)."""
    fields = config.model.to_dict()
    return variants.config_from_name(fields.pop("variant"), **fields)


def start_files(config, parts: Iterable[str]) -> dict[str, str]:
    """`config.init_from` (missing: none): part name -> file with its initial parameters.

    Raises:
        UserError: a name that is not in `parts`.
    """
    files = dict(config.get("init_from", {}))
    for part in files:
        if part not in parts:
            raise UserError(f"config.init_from.{part}: no such part; there are {', '.join(parts)}")
    return files


def read_part(part: str, path: str, config, shapes: Mapping, laid: Mapping) -> dict:
    """Reads one part of the parameters from a file; each device's shard of a tensor is read on its own.

    Args:
        part: such as "composer". path: a weights file of macro's.
        config: its `model` must have the file's sizes.
        shapes, laid: trees with the shape and the sharding of each parameter of the part.

    Raises:
        UserError: the file lacks the part, or its sizes differ from `config.model`; the message names the first one.
    """
    file = weights.reader(path)
    held = {name.removeprefix(f"{part}/"): name for name in file if name.startswith(f"{part}/")}
    if not held:
        raise UserError(f"{path}: holds no {part}; config.init_from.{part} needs a file with one")
    wanted = model_config(config)
    sizes = ("vae",) if part == "vae" else variants.COMPOSER_SIZES
    difference = variants.first_difference(weights.config_of(file), wanted, sizes)
    if difference:
        name, found, due = difference
        raise UserError(f"{path}: its {part} has model.{name}={found}, but config.model asks for {due}")
    shapes, laid = tree.flatten(shapes), tree.flatten(laid)
    for name in held:
        if name not in shapes:
            raise UserError(f"{path}: its {part} has {name}, which config.model leaves out")
    for name, leaf in shapes.items():
        missing = name not in held and not (name == weights.BINDING and wanted.binding_init == 0)
        if missing or name in held and file.specs[held[name]].shape != leaf.shape:
            raise UserError(f"{path}: its {part} has no {name} of shape {leaf.shape}, which config.model asks for")

    def read(name: str) -> Array:
        leaf = shapes[name]
        stored = file.view(held[name]) if name in held else np.broadcast_to(np.float32(0), leaf.shape)
        return weights.on_devices(stored, leaf.dtype, laid[name])

    return tree.unflatten({name: read(name) for name in shapes})
