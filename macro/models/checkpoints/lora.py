"""Merges LoRA adapters into a model's parameters, and reads and writes them.

    W  ->  W + alpha / rank * A B        A [.., in, rank], B [.., rank, out]; stacked layers have stacked adapters

On disk they are `lora.safetensors` as `macro.train` writes it, or a PEFT folder (`peft.py` beside this file). Both are
read as one tree: adapters under "lora" at the path of their kernel, and parameters that were trained in full (PEFT's
`modules_to_save`) at their own path.

    {"lora": {"composer": {... "q": {"kernel": {"a": A, "b": B}}}}, "composer": {"binding": ...}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from macro.models.checkpoints import weights
from macro.models.checkpoints.peft import load_peft
from macro.models.checkpoints.weights import ADAPTERS
from macro.utils import tree
from macro.utils.errors import UserError
from macro.utils.streaming_safetensors import Spec, streaming_writer


def merge(params: Mapping, adapters: Mapping, scale: float) -> dict:
    """`params` with `scale` * A B added to each adapted kernel, in the kernel's dtype; same tree.

    Raises:
        UserError: an adapter has no kernel, or does not fit its shape.
    """
    flat = tree.flatten(params)
    for path, (a, b) in pairs(adapters).items():
        kernel = flat.get(path)
        _check_fits(path, None if kernel is None else kernel.shape, a, b)
        # Full precision costs little here; accelerators multiply at a lower one by default.
        product = np.matmul(a, b) if isinstance(kernel, np.ndarray) else jnp.matmul(a, b, precision="highest")
        flat[path] = (kernel + scale * product).astype(kernel.dtype)
    return tree.unflatten(flat)


def merge_file(params: Mapping, path: str | os.PathLike) -> dict:
    """`params` with a LoRA from disk merged in.

    Args:
        params: of the whole model, numpy.
        path: a lora.safetensors of ours or a PEFT folder.

    Raises:
        UserError: there is no LoRA there, or its kernels or shapes differ from the model's.
    """
    lora, fields = read(path)
    _check_base(path, lora, {name: value.shape for name, value in tree.flatten(params).items()})
    adapters = lora.pop(ADAPTERS)
    return merge(tree.merge(params, lora), adapters, fields["alpha"] / fields["rank"])


def read(path: str | os.PathLike) -> tuple[dict, dict]:
    """Reads a LoRA from disk.

    Returns:
        (parameters as above, float32 numpy; `rank`, `alpha`, `dropout`, `target_modules`, `modules_to_save`: the fields
        of `macro/training/lora.py`'s LoRAConfig).

    Raises:
        UserError: the file or folder is missing or has no adapters.
    """
    if Path(path).is_dir():
        return load_peft(path)
    file = weights.reader(path)
    params = tree.unflatten({name: np.asarray(value, np.float32) for name, value in file.items()})
    fields = json.loads(file.metadata.get("notes", "{}")).get("lora")
    if ADAPTERS not in params or not fields:
        raise UserError(f"{path}: holds no adapters; name the lora.safetensors of a training, or a folder of PEFT's")
    return params, fields


def save(path: str | os.PathLike, params: Mapping, fields: Mapping, base: str | os.PathLike | None = None) -> None:
    """Writes a LoRA, as `read` returns it, to a file of ours.

    Args:
        path: file to write.
        params, fields: as from `read`.
        base: weights file of their model, to check them against; None: no check.

    Raises:
        UserError: the base lacks a kernel or has it in another shape.
    """
    flat = {name: np.asarray(value, np.float32) for name, value in tree.flatten(params).items()}
    metadata = {"notes": json.dumps({"lora": dict(fields)})}
    if base is not None:
        file = weights.reader(base)
        metadata |= weights.header(weights.config_of(file), {"lora": dict(fields), "base": Path(base).name})
        _check_base(path, params, {name: spec.shape for name, spec in file.specs.items()})
    with streaming_writer(path, {name: Spec(x.shape, x.dtype) for name, x in flat.items()}, metadata) as write:
        for name, value in flat.items():
            write(name, value)


def _check_base(path, params: Mapping, shapes: Mapping) -> None:
    """Raises UserError for parameters of a LoRA that do not fit a model with these shapes."""
    try:
        for name, (a, b) in pairs(params[ADAPTERS]).items():
            _check_fits(name, shapes.get(name), a, b)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for name, value in tree.flatten({part: x for part, x in params.items() if part != ADAPTERS}).items():
        if shapes.get(name) != value.shape:
            found = f"has it {shapes[name]}" if name in shapes else "has no such parameter"
            raise UserError(f"{path}: holds {name} {value.shape}, but the model {found}; take its own base")


def pairs(adapters: Mapping) -> dict[str, tuple]:
    """Path of the kernel -> (A, B), with None for a missing matrix."""
    flat = tree.flatten(adapters)
    paths = {path.rpartition("/")[0] for path in flat}
    return {path: (flat.get(f"{path}/a"), flat.get(f"{path}/b")) for path in sorted(paths)}


def _check_fits(path: str, kernel: tuple | None, a, b) -> None:
    shapes = [kernel, *(None if x is None else x.shape for x in (a, b))]
    fits = None not in shapes and shapes[1][-1:] == shapes[2][-2:-1]
    if not fits or shapes[0] != (*shapes[1][:-1], shapes[2][-1]) or shapes[1][:-2] != shapes[2][:-2]:
        raise UserError(
            f"the adapters of {path} do not fit: kernel {shapes[0]}, a {shapes[1]}, b {shapes[2]}; take those that "
            "were made for this model"
        )
