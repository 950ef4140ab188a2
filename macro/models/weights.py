"""Weights on disk: one safetensors file that carries its own configuration.

The tree of parameters is flattened to names such as `composer/mot/blocks/und/q/kernel`; the header's metadata
holds the model's configuration and whatever the maker wants to say (numbers, command, seed), as JSON.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from macro.models.variants import ModelConfig, from_dict, to_dict
from macro.utils.errors import UserError

# What floating-point tensors can be stored as.
DTYPES = ("float32", "bfloat16")


def save(path: str | os.PathLike, params: Mapping, config: ModelConfig, notes: Mapping, dtype="float32") -> None:
    """Writes `params` whole or not at all.

    Args:
        path: file to write.
        params: nested dict of arrays, top level `composer` and/or `vae`.
        config: what the parameters are shaped by.
        notes: JSON-able facts about the weights.
        dtype: stored type of floating-point tensors, one of `DTYPES`.
    """
    from safetensors.flax import save_file

    flat = {name: jnp.asarray(value, dtype) for name, value in flatten_dict(params, sep="/").items()}
    metadata = {"config": json.dumps(to_dict(config)), "notes": json.dumps(dict(notes))}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(handle)
    try:
        save_file(flat, temporary, metadata=metadata)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def load(path: str | os.PathLike) -> tuple[dict, ModelConfig, dict]:
    """Reads what `save` wrote.

    Returns:
        (params as a nested dict of float32 numpy arrays, configuration, notes).

    Raises:
        UserError: no such file, no safetensors, or no configuration inside.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"{path}: no such weights file; give the path of a .safetensors file that macro wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); copy or download it again") from error
    if "config" not in metadata:
        raise UserError(f"{path}: holds no macro configuration; convert other weights with macro.convert first")
    config = from_dict(json.loads(metadata["config"]))
    return unflatten_dict(flat, sep="/"), config, json.loads(metadata.get("notes", "{}"))
