"""What every objective starts from: the model its config names, and parts of the parameters read from files.

    config.model = {"variant": "XS/128", ...}           macro/models/variants.py
    config.init_from = {"vae": "model.safetensors"}     part of the parameters -> file to read it from
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import numpy as np
from jaxtyping import Array

from macro.models import variants, weights
from macro.models.variants import ModelConfig
from macro.utils import tree
from macro.utils.errors import UserError


def model_config(config) -> ModelConfig:
    """The model that an experiment's configuration names (`config.model`)."""
    fields = config.model.to_dict()
    return variants.config_from_name(fields.pop("variant"), **fields)


def start_files(config, parts: Iterable[str]) -> dict[str, str]:
    """`config.init_from` (missing: none): the file that each part named there begins as.

    Raises:
        UserError: a part that is not among `parts`.
    """
    files = dict(config.get("init_from", {}))
    for part in files:
        if part not in parts:
            raise UserError(f"config.init_from.{part}: no such part; there are {', '.join(parts)}")
    return files


def read_part(part: str, path: str, config, shapes: Mapping, laid: Mapping) -> dict:
    """One part of the parameters from a file, every device's share of a tensor read on its own.

    Args:
        part: such as "composer". path: a file that macro wrote.
        config: its `model` has to have the file's sizes.
        shapes, laid: shape and sharding of each of the part's parameters, in trees.

    Raises:
        UserError: a file without the part, or one of other sizes than `config.model`.
    """
    reader = weights.reader(path)
    found, wanted = _shaped_by(weights.config_of(reader), part), _shaped_by(model_config(config), part)
    held = {name.removeprefix(f"{part}/"): name for name in reader if name.startswith(f"{part}/")}
    if not held:
        raise UserError(f"{path}: holds no {part}; config.init_from.{part} needs a file with one")
    if found != wanted:
        raise UserError(f"{path}: its {part} is {found}, but config.model asks for {wanted}")
    shapes, laid = tree.flatten(shapes), tree.flatten(laid)
    for name, leaf in shapes.items():
        if name not in held or reader.specs[held[name]].shape != leaf.shape:
            raise UserError(f"{path}: its {part} has no {name} of shape {leaf.shape}, which config.model asks for")

    def read(name: str) -> Array:
        tensor, leaf = reader.view(held[name]), shapes[name]
        return jax.make_array_from_callback(leaf.shape, laid[name], lambda index: np.asarray(tensor[index], leaf.dtype))

    return tree.unflatten({name: read(name) for name in shapes})


def _shaped_by(model: ModelConfig, part: str):
    """What fixes the shapes and meaning of one top-level part of the parameters."""
    if part == "vae":
        # Scale and shift belong to whoever trains on the latents, not to the autoencoder.
        return dataclasses.replace(model.vae, scale=1.0, shift=0.0)
    return model.llm, model.vision, model.latent_patch, model.latent_side, model.subjects, model.binding
