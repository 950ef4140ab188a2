"""Weights on disk: one safetensors file that contains its own configuration.

The tree of parameters is flattened to names such as `composer/mot/blocks/und/q/kernel`; the header's metadata
holds the model's configuration and free-form notes (metrics, command, seed), as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from macro.models.variants import ModelConfig, from_dict, to_dict
from macro.utils.errors import UserError
from macro.utils.files import local
from macro.utils.streaming_safetensors import Spec, TensorReader, streaming_writer

# Key of the LoRA adapters in a tree of parameters.
ADAPTERS = "lora"
# What a file may lack: the layout binding of a model trained without it starts at zero, where it has no effect.
BINDING = "binding"
# Types in which floating-point tensors can be stored.
DTYPES = ("float32", "bfloat16")


def save(path: str | os.PathLike, params: Mapping, config: ModelConfig, notes: Mapping, dtype="float32") -> None:
    """Writes `params` to a file, whole or not at all.

    Args:
        path: file to write.
        params: nested dict of arrays, top level `composer` and/or `vae`.
        config: the model's configuration, which determines the shapes.
        notes: JSON-able facts about the weights.
        dtype: stored type of floating-point tensors, one of `DTYPES`.
    """
    flat = {name: np.asarray(value, np.dtype(dtype)) for name, value in flatten_dict(params, sep="/").items()}
    specs = {name: Spec(value.shape, value.dtype) for name, value in flat.items()}
    with streaming_writer(path, specs, header(config, notes)) as write:
        for name, value in flat.items():
            write(name, value)


def load(path: str | os.PathLike) -> tuple[dict, ModelConfig, dict]:
    """Reads a file that `save` wrote.

    Returns:
        (params as a nested dict of float32 numpy arrays, configuration, notes).

    Raises:
        UserError: the file is missing, no safetensors, or without a configuration.
    """
    file = reader(path)
    config = config_of(file)
    flat = {name: np.asarray(value, np.float32) for name, value in file.items()}
    return unflatten_dict(flat, sep="/"), config, notes_of(file)


def views(file: TensorReader) -> dict:
    """The parameters of a file as a nested dict of lazy arrays: only the parts that are accessed are read."""
    return unflatten_dict({name: file.view(name) for name in file}, sep="/")


def notes_of(file: TensorReader) -> dict:
    """The notes in a weights file."""
    return json.loads(file.metadata.get("notes", "{}"))


def on_devices(values: np.ndarray | jax.Array, dtype: DTypeLike, where: jax.sharding.Sharding) -> jax.Array:
    """A tensor, possibly still on disk, sharded over devices; each device's shard is read and cast on its own."""
    return jax.make_array_from_callback(values.shape, where, lambda index: np.asarray(values[index], dtype))


def reader(path: str | os.PathLike) -> TensorReader:
    """A reader of single tensors of a file that `save` wrote. Raises UserError if it is missing."""
    if not local(path).is_file():
        raise UserError(f"{path}: no such weights file; give the path of a .safetensors file that macro wrote")
    return TensorReader(path)


def header(config: ModelConfig, notes: Mapping) -> dict[str, str]:
    """The metadata of a weights file."""
    return {"config": json.dumps(to_dict(config)), "notes": json.dumps(dict(notes))}


def config_of(reader: TensorReader) -> ModelConfig:
    """The configuration in a file's metadata. Raises UserError if there is none."""
    if "config" not in reader.metadata:
        raise UserError(f"{reader.path}: holds no macro configuration; convert other weights with macro.convert first")
    return from_dict(json.loads(reader.metadata["config"]))
