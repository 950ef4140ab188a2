"""What every objective starts from: the model its config names, and parts of the parameters read from files.

    config.model = {"variant": "XS/128", ...}           macro/models/variants.py
    config.init_from = {"vae": "model.safetensors"}     part of the parameters -> file to read it from
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from macro.models import variants, weights
from macro.models.variants import ModelConfig
from macro.utils.errors import UserError


def model_config(config) -> ModelConfig:
    """The model that an experiment's configuration names (`config.model`)."""
    fields = config.model.to_dict()
    return variants.decode(fields.pop("variant"), **fields)


def replaced(params: dict, config) -> dict:
    """`params` with the parts that `config.init_from` names read from its files.

    Raises:
        UserError: a part that does not exist, a file without it, or with other sizes than `config.model`.
    """
    model, params = model_config(config), dict(params)
    for part, path in config.init_from.items():
        if part not in params:
            raise UserError(f"config.init_from.{part}: no such part; there are {', '.join(params)}")
        loaded, theirs, _ = weights.load(path)
        if part not in loaded:
            raise UserError(f"{path}: holds no {part}; config.init_from.{part} needs a file with one")
        found, wanted = _shaped_by(theirs, part), _shaped_by(model, part)
        if found != wanted:
            raise UserError(f"{path}: its {part} is {found}, but config.model asks for {wanted}")
        params[part] = jax.tree.map(jnp.asarray, loaded[part])
    return params


def _shaped_by(model: ModelConfig, part: str):
    """What fixes the shapes and meaning of one top-level part of the parameters."""
    if part == "vae":
        # Scale and shift belong to whoever trains on the latents, not to the autoencoder.
        return dataclasses.replace(model.vae, scale=1.0, shift=0.0)
    return model.llm, model.vision, model.latent_patch, model.latent_side, model.subjects, model.binding
