"""LoRA adapters in the files of Hugging Face's PEFT, both ways, under the names of BAGEL's modules.

    <folder>/adapter_config.json          rank, alpha, dropout, the adapted modules
    <folder>/adapter_model.safetensors    base_model.model.<module>.lora_A.weight [rank, in], .lora_B.weight [out, rank]

Ours hold a [..., in, rank] and b [..., rank, out] by the path of their kernel, all layers stacked; PEFT has one pair
per layer, each matrix turned. Both add alpha / rank * (their product) to the kernel.
Read next: `macro/models/bagel/table.py`, which module is which kernel; `macro/training/lora.py`, how adapters are used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from macro.models.bagel.table import TURNS, our_place, upstream_place
from macro.utils import tree
from macro.utils.errors import UserError
from macro.utils.files import atomic_write
from macro.utils.streaming_safetensors import TensorReader

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
BAGEL = "ByteDance-Seed/BAGEL-7B-MoT"
LINEAR = TURNS["linear"]

# What an adapter_config.json says that changes nothing about the sum W + alpha / rank * B A: who it is for, which
# modules (the tensors' names say so themselves), and settings of variants that another key would switch on.
_BESIDE = {
    "auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "megatron_config", "megatron_core",
    "peft_version", "qalora_group_size", "r", "revision", "runtime_config", "target_modules", "task_type",
}  # fmt: skip
# Keys that must have one of these values. Other ways to initialise (PiSSA, OLoRA, LoftQ...) change the base too.
_MUST = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_SHOWN = 8  # of a folder's mistakes


def save_peft(
    folder: str | os.PathLike, adapters: Mapping, rank: int, alpha: float, dropout: float = 0.0, base: str = BAGEL
) -> None:
    """Writes adapters the way `PeftModel.save_pretrained` does.

    Args:
        folder: made if it is not there.
        adapters: `{"a": ..., "b": ...}` by the path of a kernel, as `macro/training/lora.py` makes them.
        rank, alpha, dropout: what they were trained with.
        base: name or path of the model that they change.

    Raises:
        UserError: another rank than the adapters have, or a kernel that is no linear layer in BAGEL.
    """
    from safetensors.numpy import save

    tensors = {}
    for path, layer, a, b in _layers(adapters):
        place = upstream_place(path, layer)
        if place is None or place.turn is not LINEAR:
            raise UserError(f"{path}: is no linear layer of BAGEL's, so PEFT has no name for it; leave it out")
        if a.shape[1] != rank or b.shape[0] != rank:
            raise UserError(f"{path}: its adapters are a {a.shape}, b {b.shape}, but the rank said is {rank}")
        name = f"base_model.model.{_module(place.name)}"
        tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(a.T)
        tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(b.T)
    modules = sorted({_KEY.fullmatch(key)["module"] for key in tensors})
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "task_type": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        # Whole names: the last part alone, such as q_proj, would find the vision encoder's modules too.
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }
    atomic_write(Path(folder) / WEIGHTS, save(tensors, {"format": "pt"}))
    atomic_write(Path(folder) / CONFIG, json.dumps(config, indent=2) + "\n")


def load_peft(folder: str | os.PathLike) -> tuple[dict, dict[str, Any]]:
    """Reads what `save_peft` or PEFT wrote for BAGEL.

    Returns:
        (adapters, float32 numpy, as `macro/training/lora.py` takes them; `rank`, `alpha`, `dropout` and
        `target_modules`, patterns of just these kernels: the fields of a `LoRAConfig`).

    Raises:
        UserError: a file is missing or no such file, the adapters are of a kind that is no plain LoRA, or tensors
            do not fit the config, each other or BAGEL; the message lists them.
    """
    folder = Path(folder)
    config = _read_config(folder)
    halves, problems = _read_halves(folder, config["r"])
    adapters = {}
    for path, layers in halves.items():
        problems += _unfit(path, layers)
        if not problems:
            stacked = [np.stack([layers[layer][half].T for layer in sorted(layers, key=_first)]) for half in "AB"]
            a, b = (x[0] if None in layers else x for x in stacked)
            adapters |= {f"{path}/a": a, f"{path}/b": b}
    if not adapters and not problems:
        problems = [f"{WEIGHTS} holds no tensors"]
    _refuse(folder, problems)
    fields = {
        "rank": config["r"],
        "alpha": float(config["lora_alpha"]),
        "dropout": float(config.get("lora_dropout", 0.0)),
        "target_modules": tuple(f"^{re.escape(path)}$" for path in sorted(halves)),
    }
    return tree.unflatten(adapters), fields


def _module(key: str) -> str:
    return key.removesuffix(".weight")


def _layers(adapters: Mapping) -> Iterator[tuple[str, int | None, np.ndarray, np.ndarray]]:
    """Path, layer (None where they are not stacked), a [in, rank] and b [rank, out], float32."""
    flat = {path: np.asarray(leaf, np.float32) for path, leaf in tree.flatten(adapters).items()}
    for path in sorted({path.rpartition("/")[0] for path in flat}):
        a, b = flat[f"{path}/a"], flat[f"{path}/b"]
        if a.ndim == 2:
            yield path, None, a, b
        else:
            yield from ((path, layer, *pair) for layer, pair in enumerate(zip(a, b, strict=True)))


def _read_config(folder: Path) -> dict:
    """The config, if it describes LoRA as above."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder / CONFIG}: is missing; name the folder that PEFT's save_pretrained wrote")
    try:
        config = json.loads((folder / CONFIG).read_text())
    except ValueError as error:
        raise UserError(f"{folder / CONFIG}: is no JSON ({error}); copy or download it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{folder / CONFIG}: holds no keys and values; copy or download it again")
    problems = []
    for key, value in config.items():
        if key in _MUST and value not in _MUST[key]:
            problems.append(f"{key} is {value!r}, but only {' or '.join(map(repr, _MUST[key]))} can be read")
        elif key not in _MUST and key not in _BESIDE and value:
            problems.append(f"{key} is {value!r}, but only plain LoRA without it can be read")
    if type(config.get("r")) is not int or config["r"] < 1:
        problems.append(f"r, the rank, is {config.get('r')!r}, but must be a whole number above 0")
    if not isinstance(config.get("lora_alpha"), int | float):
        problems.append(f"lora_alpha is {config.get('lora_alpha')!r}, but must be a number")
    _refuse(folder / CONFIG, problems)
    return config


def _read_halves(folder: Path, rank: int) -> tuple[dict, list[str]]:
    """{our path: {layer: {"A": [rank, in], "B": [out, rank]}}}, and what is wrong with the tensors that are not in
    it."""
    halves, problems = {}, []
    for key, value in _read_tensors(folder).items():
        match = _KEY.fullmatch(key)
        place = our_place(f"{match['module']}.weight") if match else None
        if match is None:
            problems.append(f"{key}: not <module>.lora_A.weight or .lora_B.weight")
        elif place is None or place.turn is not LINEAR:
            problems.append(f"{key}: BAGEL has no such linear layer")
        elif value.ndim != 2 or value.shape["AB".index(match["half"])] != rank:
            problems.append(f"{key}: has shape {value.shape}, but the rank is {rank}")
        else:
            halves.setdefault(place.name, {}).setdefault(place.layer, {})[match["half"]] = value
    return halves, problems


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / PICKLE).is_file():
            raise UserError(
                f"{folder / PICKLE}: is a pickle, which can run any code when it is opened, and is not read; have "
                f"it saved again as {WEIGHTS} (save_pretrained with safe_serialization=True)"
            )
        raise UserError(f"{path}: is missing; name the folder that PEFT's save_pretrained wrote")
    return {key: np.asarray(value, np.float32) for key, value in TensorReader(path).items()}


def _unfit(path: str, layers: Mapping) -> list[str]:
    """What keeps the layers of one kernel from being stacked."""
    names = {layer: _module(upstream_place(path, layer).name) for layer in layers}
    single = [f"{names[layer]}: has lora_{''.join(half)} alone" for layer, half in layers.items() if len(half) < 2]
    missing = sorted(set(range(max(layers, key=_first) + 1)) - set(layers)) if None not in layers else []
    gaps = [f"{_module(upstream_place(path, layer).name)}: is missing, its other layers are there" for layer in missing]
    if single or gaps:
        return single + gaps
    shapes = {layer: (half["A"].shape, half["B"].shape) for layer, half in layers.items()}
    first = shapes[min(shapes, key=_first)]
    return [f"{names[layer]}: has shapes {s}, other layers {first}" for layer, s in shapes.items() if s != first]


def _first(layer: int | None) -> int:
    """A key to sort layers by, where there may be just one without a number."""
    return -1 if layer is None else layer


def _refuse(where: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(f"{where}: {'; '.join(problems[:_SHOWN])}{more}")
