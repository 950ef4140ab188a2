"""LoRA adapters merged into a model's parameters, and read from disk.

    W  ->  W + alpha / rank * A B        A [.., in, rank], B [.., rank, out]; stacked layers have stacked adapters

On disk they are `lora.safetensors` as `macro.train` writes it, or a folder of PEFT's (`peft.py` beside this file).
Both give the adapters by the path of their kernel under "lora", and by their own path the parameters that were trained
in full besides (PEFT's `modules_to_save`).

    {"lora": {"composer": {... "q": {"kernel": {"a": A, "b": B}}}}, "composer": {"binding": ...}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from macro.models import weights
from macro.models.checkpoints.peft import load_peft
from macro.models.weights import ADAPTERS
from macro.utils import tree
from macro.utils.errors import UserError


def merge(params: Mapping, adapters: Mapping, scale: float) -> dict:
    """`params` with `scale` * A B added to each adapted kernel, in the kernel's own type; the same tree.

    Raises:
        UserError: adapters without their kernel, or of other shapes than it asks for.
    """
    flat = tree.flatten(params)
    for path, (a, b) in pairs(adapters).items():
        kernel = flat.get(path)
        _check_fits(path, kernel, a, b)
        # Small, and worth full precision: never the lower one that accelerators multiply in.
        product = np.matmul(a, b) if isinstance(kernel, np.ndarray) else jnp.matmul(a, b, precision="highest")
        flat[path] = (kernel + scale * product).astype(kernel.dtype)
    return tree.unflatten(flat)


def merge_file(params: Mapping, path: str | os.PathLike) -> dict:
    """`params` with a LoRA from disk merged in.

    Args:
        params: the whole model's, numpy.
        path: a lora.safetensors of ours or a folder of PEFT's.

    Raises:
        UserError: no such LoRA, or one of other kernels or shapes than the model has.
    """
    params_of_lora, fields = read(path)
    adapters = params_of_lora.pop(ADAPTERS)
    flat = tree.flatten(params)
    for name, value in tree.flatten(params_of_lora).items():
        if name not in flat or flat[name].shape != value.shape:
            found = "no such parameter" if name not in flat else f"shape {flat[name].shape}"
            raise UserError(f"{path}: holds {name} {value.shape}, but the model has {found}; take its own base")
    try:
        return merge(tree.merge(params, params_of_lora), adapters, fields["alpha"] / fields["rank"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read(path: str | os.PathLike) -> tuple[dict, dict]:
    """A LoRA from disk.

    Returns:
        (parameters as above, float32 numpy; `rank`, `alpha`, `dropout`, `target_modules`, `modules_to_save`: the fields
        of `macro/training/lora.py`'s LoRAConfig).

    Raises:
        UserError: no such file or folder, or one without adapters.
    """
    if Path(path).is_dir():
        return load_peft(path)
    file = weights.reader(path)
    params = tree.unflatten({name: np.asarray(value, np.float32) for name, value in file.items()})
    fields = json.loads(file.metadata.get("notes", "{}")).get("lora")
    if ADAPTERS not in params or not fields:
        raise UserError(f"{path}: holds no adapters; name the lora.safetensors of a training, or a folder of PEFT's")
    return params, fields


def pairs(adapters: Mapping) -> dict[str, tuple]:
    """(A, B) by the path of their kernel; None for a missing half."""
    flat = tree.flatten(adapters)
    paths = {path.rpartition("/")[0] for path in flat}
    return {path: (flat.get(f"{path}/a"), flat.get(f"{path}/b")) for path in sorted(paths)}


def _check_fits(path: str, kernel, a, b) -> None:
    shapes = [None if x is None else x.shape for x in (kernel, a, b)]
    fits = None not in shapes and shapes[1][-1:] == shapes[2][-2:-1]
    if not fits or shapes[0] != (*shapes[1][:-1], shapes[2][-1]) or shapes[1][:-2] != shapes[2][:-2]:
        raise UserError(
            f"the adapters of {path} do not fit: kernel {shapes[0]}, a {shapes[1]}, b {shapes[2]}; take those that "
            "were made for this model"
        )
