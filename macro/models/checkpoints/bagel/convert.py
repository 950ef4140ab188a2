"""Imports and exports BAGEL checkpoints, tensor by tensor, so that a 29 GB file needs little memory.

Ours is one `model.safetensors` (macro/models/checkpoints/weights.py) with stacked layers, and beside it a folder
`bagel/` with what we compute or do not read: position tables, JSON files, the tokenizer. Types are kept, so an import
followed by an export gives the same bytes. Parameters that BAGEL lacks, the binding table and LoRA adapters
(`lora.safetensors`, which are also merged into the model), are exported in macro_extra.safetensors.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from macro.models.checkpoints import weights
from macro.models.checkpoints.bagel import checkpoint
from macro.models.checkpoints.bagel.checkpoint import BagelFolder
from macro.models.checkpoints.bagel.param_map import Transform, torch_param
from macro.models.params import init_params
from macro.models.variants import ModelConfig, VAEConfig
from macro.nn.layers import position_embedding
from macro.utils.errors import UserError
from macro.utils.files import atomic_write
from macro.utils.streaming_safetensors import Spec, TensorReader, streaming_writer

MACRO_WEIGHTS, LORA = "model.safetensors", "lora.safetensors"
BAGEL_DIR, TABLES = "bagel", "tables.safetensors"
_LISTED = 12  # differences of one kind that an error lists


class TensorMapping(NamedTuple):
    """One BAGEL tensor and the parameter (or the layer of one) that it maps to."""

    key: str
    shape: tuple[int, ...]
    path: str
    layer: int | None
    transform: Transform


@functools.cache
def shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Path -> shape of every parameter of a model; nothing is allocated."""
    params = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    return MappingProxyType({path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()})


def tensor_mappings(config: ModelConfig) -> Iterator[TensorMapping]:
    """All tensors of a BAGEL checkpoint of this size, VAE included, except the fixed tables."""
    for path, shape in shapes(config).items():
        whole = torch_param(path)
        layers = [None] if whole else range(shape[0])
        for layer in layers:
            mapped = whole or torch_param(path, layer)
            if mapped is None:  # binding, which BAGEL does not have
                break
            transformed = mapped.transform.to_torch(np.broadcast_to(np.int8(0), shape if layer is None else shape[1:]))
            yield TensorMapping(mapped.name, transformed.shape, path, layer, mapped.transform)


def check(source: BagelFolder) -> None:
    """Raises a UserError that lists every tensor that is missing, unexpected or of another shape."""
    wanted = {mapping.key: mapping.shape for mapping in tensor_mappings(source.config)}
    tables = fixed_tables(source.config)
    found = {key: spec.shape for tensors in (source.composer, source.vae) for key, spec in tensors.specs.items()}
    allowed = wanted | tables
    differences = {
        "missing": [f"{key} {shape}" for key, shape in wanted.items() if key not in found],
        "unknown": [f"{key} {shape}" for key, shape in found.items() if key not in allowed],
        "of another shape": [
            f"{key} {found[key]}, not {shape}" for key, shape in allowed.items() if found.get(key, shape) != shape
        ],
    }
    ours = shapes(source.config)
    for path, spec in (source.extra.specs if source.extra else {}).items():
        if _is_adapter(path):
            if not _adapts(path, spec.shape, ours):
                differences["of another shape"].append(f"{checkpoint.EXTRA}: {path} {spec.shape} fits no kernel")
        elif ours.get(path) != spec.shape:
            differences["of another shape"].append(f"{checkpoint.EXTRA}: {path} {spec.shape}, not {ours.get(path)}")
    said = [
        f"{len(names)} {kind}: {'; '.join(names[:_LISTED])}{' ...' if len(names) > _LISTED else ''}"
        for kind, names in differences.items()
        if names
    ]
    if said:
        raise UserError(f"{source.path}: does not fit its own sizes; {'. '.join(said)}")


def _is_adapter(path: str) -> bool:
    return path.startswith(f"{weights.ADAPTERS}/")


def _adapts(path: str, shape: tuple[int, ...], ours: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether an adapter matrix A [..., in, rank] or B [..., rank, out] fits the kernel [..., in, out] at its path."""
    kernel, _, half = path.removeprefix(f"{weights.ADAPTERS}/").rpartition("/")
    wanted = ours.get(kernel, ())
    inputs, outputs = wanted[:-1], (*wanted[:-2], *wanted[-1:])
    fitting = {"a": (shape[:-1], inputs), "b": ((*shape[:-2], *shape[-1:]), outputs)}
    return len(wanted) > 1 and len(shape) == len(wanted) and half in fitting and fitting[half][0] == fitting[half][1]


def fixed_tables(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Key -> shape of the position tables that BAGEL stores."""
    width = config.llm.width
    return {
        checkpoint.LATENT_TABLE: (config.latent_side**2, width),
        checkpoint.VISION_TABLE: (config.vision.side**2, width),
    }


def import_bagel(source: BagelFolder, out: str | Path, notes: Mapping) -> list[Path]:
    """Writes `<out>/model.safetensors`, `<out>/bagel/` and, if there are adapters, `<out>/lora.safetensors`.

    Args:
        notes: facts about the weights, for the file's header.

    Returns:
        Paths of the weights' files.

    Raises:
        UserError: tensors do not fit (see `check`); raised before anything is written.
    """
    check(source)
    out = Path(out)
    stored = dict(source.composer.specs) | dict(source.vae.specs)
    ours = shapes(source.config)
    specs = {path: Spec(shape, np.dtype("float32")) for path, shape in ours.items()}
    listed = list(tensor_mappings(source.config))
    specs |= {mapping.path: Spec(ours[mapping.path], stored[mapping.key].dtype) for mapping in listed}
    with streaming_writer(out / MACRO_WEIGHTS, specs, weights.header(source.config, notes)) as write:
        for mapping in listed:
            # No variable holds the tensor: it would keep it alive until the next one is read.
            tensors = source.vae if mapping.path.startswith("vae/") else source.composer
            write(mapping.path, mapping.transform.to_flax(tensors[mapping.key]), mapping.layer)
        for path in source.extra:
            if not _is_adapter(path):
                write(path, source.extra[path])
    tables = {key: source.composer.specs[key] for key in fixed_tables(source.config) if key in source.composer}
    with streaming_writer(out / BAGEL_DIR / TABLES, tables, {}) as write:
        for key in tables:
            write(key, source.composer[key])
    for path in source.copied_files:
        shutil.copyfile(path, out / BAGEL_DIR / path.name)
    (out / LORA).unlink(missing_ok=True)  # another model's
    adapters = {path: source.extra.specs[path] for path in source.extra if _is_adapter(path)}
    if not adapters:
        return [out / MACRO_WEIGHTS]
    with streaming_writer(out / LORA, adapters, source.extra.metadata) as write:
        for path in adapters:
            write(path, source.extra[path])
    return [out / MACRO_WEIGHTS, out / LORA]


def export_bagel(source: str | Path, out: str | Path) -> list[Path]:
    """Writes a folder that BAGEL's own code loads, from our weights; returns its files.

    Args:
        source: a folder written by `import_bagel` or training, or a `.safetensors` file of ours.
        out: gets ema.safetensors, ae.safetensors, the JSON files, the tokenizer if there is one, and
            macro_extra.safetensors if the model has parameters that BAGEL lacks, or adapters beside it.

    Raises:
        UserError: the weights are not ours, or lack a composer or a VAE.
    """
    source, out = Path(source), Path(out)
    path = source / MACRO_WEIGHTS if source.is_dir() else source
    reader = TensorReader(path)
    config = weights.config_of(reader)
    ours = shapes(config)
    absent = sorted(ours.keys() - reader.specs.keys())
    if absent:
        raise UserError(f"{path}: {len(absent)} parameters are missing, {', '.join(absent[:_LISTED])} ...")
    if config.vae.groups != VAEConfig.groups:
        raise UserError(
            f"{path}: its autoencoder normalises in {config.vae.groups} groups, BAGEL's always in {VAEConfig.groups}"
        )
    listed, bagel_dir = list(tensor_mappings(config)), path.parent / BAGEL_DIR
    written = []
    for name, vae in (("ema.safetensors", False), (checkpoint.AUTOENCODER, True)):
        mine = [mapping for mapping in listed if mapping.path.startswith("vae/") == vae]
        specs = {mapping.key: Spec(mapping.shape, reader.specs[mapping.path].dtype) for mapping in mine}
        tables = {} if vae else _tables(config, bagel_dir, reader.specs["composer/planner/embed"].dtype)
        specs |= {key: Spec(table.shape, table.dtype) for key, table in tables.items()}
        with streaming_writer(out / name, specs, {"format": "pt"}) as write:
            for mapping in mine:
                write(mapping.key, mapping.transform.to_torch(reader.read(mapping.path, mapping.layer)))
            for key, table in tables.items():
                write(key, table)
        written.append(out / name)
    beside = path.with_name(LORA)
    adapters = TensorReader(beside) if path.name == MACRO_WEIGHTS and beside.is_file() else None
    alone = {name: reader for name in sorted(ours.keys() - {mapping.path for mapping in listed})}
    alone |= {name: adapters for name in adapters or () if _is_adapter(name)}
    (out / checkpoint.EXTRA).unlink(missing_ok=True)  # another model's
    if alone:
        specs = {name: file.specs[name] for name, file in alone.items()}
        with streaming_writer(out / checkpoint.EXTRA, specs, adapters.metadata if adapters else {}) as write:
            for name, file in alone.items():
                write(name, file[name])
        written.append(out / checkpoint.EXTRA)
    return written + _small_files(config, bagel_dir, out)


def _tables(config: ModelConfig, bagel_dir: Path, dtype: np.dtype) -> dict[str, np.ndarray]:
    """The fixed tables as imported, or computed for a model that was not imported."""
    if (bagel_dir / TABLES).is_file():
        return dict(TensorReader(bagel_dir / TABLES))
    tables = {}
    for key, (places, width) in fixed_tables(config).items():
        side = config.latent_side if key == checkpoint.LATENT_TABLE else config.vision.side
        tables[key] = np.asarray(position_embedding(jnp.arange(places)[None], side, width)[0]).astype(dtype)
    return tables


def _small_files(config: ModelConfig, bagel_dir: Path, out: Path) -> list[Path]:
    """JSON files and the tokenizer, as imported; missing configs are made from the sizes."""
    copied_files = [
        bagel_dir / name for name in checkpoint.CONFIGS + checkpoint.COPIED_FILES if (bagel_dir / name).is_file()
    ]
    for path in copied_files:
        shutil.copyfile(path, out / path.name)
    written = [out / path.name for path in copied_files]
    for name, values in checkpoint.json_configs(config).items():
        if out / name not in written:
            atomic_write(out / name, json.dumps(values, indent=2) + "\n")
            written.append(out / name)
    return written
