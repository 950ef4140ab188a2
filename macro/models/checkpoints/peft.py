"""Reads and writes LoRA adapters as Hugging Face PEFT folders, under the names of BAGEL's modules.

    <folder>/adapter_config.json          rank, alpha, dropout, adapted modules, modules saved in full
    <folder>/adapter_model.safetensors    base_model.model.<module>.lora_A.weight [rank, in], .lora_B.weight [out, rank]
                                          and base_model.model.<module>.weight of modules trained in full
    <folder>/macro_extra.safetensors      parameters without a BAGEL module (the binding); PEFT ignores it

Ours are a [..., in, rank] and b [..., rank, out] at the path of their kernel, all layers stacked; PEFT has one pair per
layer, each matrix transposed. Both add alpha / rank * (their product) to the kernel.
Read next: `bagel/param_map.py` (maps modules to kernels), `lora.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from macro.models.checkpoints.bagel.checkpoint import EXTRA
from macro.models.checkpoints.bagel.param_map import TRANSFORMS, flax_param, torch_param
from macro.models.checkpoints.weights import ADAPTERS
from macro.utils import tree
from macro.utils.errors import UserError
from macro.utils.files import atomic_write
from macro.utils.streaming_safetensors import TensorReader

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
BAGEL = "ByteDance-Seed/BAGEL-7B-MoT"
LINEAR = TRANSFORMS["linear"]

# Keys of an adapter_config.json that do not affect W + alpha / rank * B A: facts about the model, the list of modules
# (which follows from the tensors' names), and settings of variants that another key switches on.
_BESIDE = {
    "auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "megatron_config", "megatron_core",
    "modules_to_save",
    "peft_version", "qalora_group_size", "r", "revision", "runtime_config", "target_modules", "task_type",
}  # fmt: skip
# Keys that must have one of these values. Other initialisations (PiSSA, OLoRA, LoftQ...) change the base too.
_MUST = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_FULL = re.compile(r"base_model\.model\.(?P<name>(?P<module>.+)\.(?:weight|bias))")
_SHOWN = 8  # the most errors listed for a folder


def save_peft(
    folder: str | os.PathLike, params: Mapping, rank: int, alpha: float, dropout: float = 0.0, base: str = BAGEL
) -> None:
    """Writes adapters in the format of `PeftModel.save_pretrained`.

    Args:
        folder: created if missing.
        params: adapters `{"a": ..., "b": ...}` under "lora" at the path of their kernel, and parameters trained in
            full at their own path.
        rank, alpha, dropout: of the training.
        base: name or path of the adapted model.

    Raises:
        UserError: `rank` is not that of the adapters, or a kernel is no linear layer in BAGEL.
    """
    from safetensors.numpy import save

    tensors, modules, saved, extra = {}, set(), set(), {}
    for path, layer, a, b in _layers(params[ADAPTERS]):
        mapped = torch_param(path, layer)
        if mapped is None or mapped.transform is not LINEAR:
            raise UserError(f"{path}: is no linear layer of BAGEL's, so PEFT has no name for it; leave it out")
        if a.shape[1] != rank or b.shape[0] != rank:
            raise UserError(f"{path}: its adapters are a {a.shape}, b {b.shape}, but the rank said is {rank}")
        modules.add(_module(mapped.name))
        name = f"base_model.model.{_module(mapped.name)}"
        tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(a.T)
        tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(b.T)
    for path, value in tree.flatten({k: v for k, v in params.items() if k != ADAPTERS}).items():
        value = np.asarray(value, np.float32)
        stacked = torch_param(path, 0) is not None
        for layer in range(len(value)) if stacked else [None]:
            mapped = torch_param(path, layer)
            if mapped is None:
                extra[path] = value
                continue
            saved.add(mapped.name.rpartition(".")[0])
            one = value if layer is None else value[layer]
            tensors[f"base_model.model.{mapped.name}"] = np.ascontiguousarray(mapped.transform.to_torch(one))
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "task_type": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        # Full names: the last part alone, such as q_proj, would also match the vision encoder's modules.
        "target_modules": sorted(modules),
        "modules_to_save": sorted(saved) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }
    atomic_write(Path(folder) / WEIGHTS, save(tensors, {"format": "pt"}))
    if extra:
        atomic_write(Path(folder) / EXTRA, save(extra))
    atomic_write(Path(folder) / CONFIG, json.dumps(config, indent=2) + "\n")


def load_peft(folder: str | os.PathLike) -> tuple[dict, dict[str, Any]]:
    """Reads a folder that `save_peft` or PEFT wrote for BAGEL.

    Returns:
        (parameters as `save_peft` takes them, float32 numpy; the fields of a `LoRAConfig`: `rank`, `alpha`, `dropout`,
        `target_modules` and `modules_to_save`, the last two as patterns that match exactly these parameters).

    Raises:
        UserError: a file is missing or malformed, the adapters are no plain LoRA, or tensors do not fit the config,
            each other or BAGEL; the message lists them.
    """
    folder = Path(folder)
    config = _read_config(folder)
    halves, full, problems = _read_tensors_of(folder, config)
    flat = {}
    for path, layers in halves.items():
        problems += _unfit(path, layers)
        if not problems:
            stacked = [np.stack([layers[layer][half].T for layer in sorted(layers, key=_first)]) for half in "AB"]
            a, b = (x[0] if None in layers else x for x in stacked)
            flat |= {f"{ADAPTERS}/{path}/a": a, f"{ADAPTERS}/{path}/b": b}
    if not flat and not problems:
        problems = [f"{WEIGHTS} holds no adapters"]
    for path, layers in full.items():
        problems += _gaps(path, layers)
        if not problems:
            flat[path] = layers[None] if None in layers else np.stack([layers[layer] for layer in sorted(layers)])
    _refuse(folder, problems)
    if (folder / EXTRA).is_file():
        extra = {name: np.asarray(value, np.float32) for name, value in TensorReader(folder / EXTRA).items()}
        flat, full = flat | extra, full | extra
    fields = {
        "rank": config["r"],
        "alpha": float(config["lora_alpha"]),
        "dropout": float(config.get("lora_dropout", 0.0)),
        "target_modules": tuple(f"^{re.escape(path)}$" for path in sorted(halves)),
        "modules_to_save": tuple(f"^{re.escape(path)}$" for path in sorted(full)),
    }
    return tree.unflatten(flat), fields


def _module(key: str) -> str:
    return key.removesuffix(".weight")


def _layers(adapters: Mapping) -> Iterator[tuple[str, int | None, np.ndarray, np.ndarray]]:
    """Yields path, layer (None if not stacked), a [in, rank] and b [rank, out], float32."""
    flat = {path: np.asarray(leaf, np.float32) for path, leaf in tree.flatten(adapters).items()}
    for path in sorted({path.rpartition("/")[0] for path in flat}):
        a, b = flat[f"{path}/a"], flat[f"{path}/b"]
        if a.ndim == 2:
            yield path, None, a, b
        else:
            yield from ((path, layer, *pair) for layer, pair in enumerate(zip(a, b, strict=True)))


def _read_config(folder: Path) -> dict:
    """The folder's adapter config. Raises UserError unless it describes a plain LoRA."""
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


def _read_tensors_of(folder: Path, config: Mapping) -> tuple[dict, dict, list[str]]:
    """Adapters {our path: {layer: {"A": [rank, in], "B": [out, rank]}}}, full parameters {our path: {layer: value}},
    and errors about the tensors that are neither."""
    rank, saved = config["r"], tuple(config.get("modules_to_save") or ())
    halves, full, problems = {}, {}, []
    for key, value in _read_tensors(folder).items():
        match, whole = _KEY.fullmatch(key), _FULL.fullmatch(key)
        if match is None and whole and whole["module"].endswith(saved) and (mapped := flax_param(whole["name"])):
            full.setdefault(mapped.name, {})[mapped.layer] = mapped.transform.to_flax(value)
            continue
        mapped = flax_param(f"{match['module']}.weight") if match else None
        if match is None:
            problems.append(f"{key}: not <module>.lora_A.weight or .lora_B.weight, nor of a module to save")
        elif mapped is None or mapped.transform is not LINEAR:
            problems.append(f"{key}: BAGEL has no such linear layer")
        elif value.ndim != 2 or value.shape["AB".index(match["half"])] != rank:
            problems.append(f"{key}: has shape {value.shape}, but the rank is {rank}")
        else:
            halves.setdefault(mapped.name, {}).setdefault(mapped.layer, {})[match["half"]] = value
    return halves, full, problems


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
    """The reasons why the layers of one kernel cannot be stacked."""
    names = {layer: _module(torch_param(path, layer).name) for layer in layers}
    single = [f"{names[layer]}: has lora_{''.join(half)} alone" for layer, half in layers.items() if len(half) < 2]
    gaps = _gaps(path, layers)
    if single or gaps:
        return single + gaps
    shapes = {layer: (half["A"].shape, half["B"].shape) for layer, half in layers.items()}
    first = shapes[min(shapes, key=_first)]
    return [f"{names[layer]}: has shapes {s}, other layers {first}" for layer, s in shapes.items() if s != first]


def _gaps(path: str, layers: Mapping) -> list[str]:
    """Errors about missing layers of a stacked parameter, below its last one."""
    missing = [] if None in layers else sorted(set(range(max(layers) + 1)) - set(layers))
    return [f"{_module(torch_param(path, layer).name)}: is missing, its other layers are there" for layer in missing]


def _first(layer: int | None) -> int:
    """A sort key for layers; None, a parameter without layers, sorts first."""
    return -1 if layer is None else layer


def _refuse(where: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(f"{where}: {'; '.join(problems[:_SHOWN])}{more}")
