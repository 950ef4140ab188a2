"""BAGEL's checkpoint in, ours out, and back; tensor by tensor, so that a 29 GB file needs little memory.

Ours is one `model.safetensors` (macro/models/weights.py) whose layers are stacked, and beside it the folder
`bagel/` with what BAGEL has and we compute or do not read: position tables, JSON files, the tokenizer. Types are
kept, so importing and exporting again gives the same bytes. What BAGEL has not, the binding table and the adapters of
a training with LoRA (`lora.safetensors`, which are merged into the model besides), goes out in macro_extra.safetensors.
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

from macro.models import weights
from macro.models.bagel import folder as folders
from macro.models.bagel.folder import BagelFolder
from macro.models.bagel.table import Turn, upstream_place
from macro.models.params import init_params
from macro.models.variants import ModelConfig, VAEConfig
from macro.nn.layers import position_embedding
from macro.utils.errors import UserError
from macro.utils.files import atomic_write
from macro.utils.streaming_safetensors import Spec, TensorReader, streaming_writer

OURS, LORA = "model.safetensors", "lora.safetensors"
ASIDE, TABLES = "bagel", "tables.safetensors"
_LISTED = 12  # differences of one kind that an error spells out


class Piece(NamedTuple):
    """One tensor of BAGEL's and the parameter (or layer of one) that it is."""

    key: str
    shape: tuple[int, ...]
    path: str
    layer: int | None
    turn: Turn


@functools.cache
def shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Path -> shape of every parameter of a model; nothing is allocated."""
    params = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    return MappingProxyType({path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()})


def pieces(config: ModelConfig) -> Iterator[Piece]:
    """All tensors of the BAGEL checkpoint of this size but the fixed tables, VAE included."""
    for path, shape in shapes(config).items():
        whole = upstream_place(path)
        layers = [None] if whole else range(shape[0])
        for layer in layers:
            place = whole or upstream_place(path, layer)
            if place is None:  # binding, which BAGEL does not have
                break
            turned = place.turn.outward(np.broadcast_to(np.int8(0), shape if layer is None else shape[1:]))
            yield Piece(place.name, turned.shape, path, layer, place.turn)


def check(source: BagelFolder) -> None:
    """Raises UserError that lists every tensor that is missing, too many or of another shape."""
    wanted = {piece.key: piece.shape for piece in pieces(source.config)}
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
                differences["of another shape"].append(f"{folders.EXTRA}: {path} {spec.shape} fits no kernel")
        elif ours.get(path) != spec.shape:
            differences["of another shape"].append(f"{folders.EXTRA}: {path} {spec.shape}, not {ours.get(path)}")
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
    """Whether half an adapter, A [..., in, rank] or B [..., rank, out], fits the kernel [..., in, out] of its path."""
    kernel, _, half = path.removeprefix(f"{weights.ADAPTERS}/").rpartition("/")
    wanted = ours.get(kernel, ())
    inputs, outputs = wanted[:-1], (*wanted[:-2], *wanted[-1:])
    fitting = {"a": (shape[:-1], inputs), "b": ((*shape[:-2], *shape[-1:]), outputs)}
    return len(wanted) > 1 and len(shape) == len(wanted) and half in fitting and fitting[half][0] == fitting[half][1]


def fixed_tables(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Key -> shape of the position tables that BAGEL stores."""
    width = config.llm.width
    return {
        folders.LATENT_TABLE: (config.latent_side**2, width),
        folders.VISION_TABLE: (config.vision.side**2, width),
    }


def import_bagel(source: BagelFolder, out: str | Path, notes: Mapping) -> list[Path]:
    """Writes `<out>/model.safetensors`, `<out>/bagel/` and, where adapters came along, `<out>/lora.safetensors`.

    Args:
        notes: facts about the weights, for the file's header.

    Returns:
        The weights' files.

    Raises:
        UserError: tensors that do not fit (see `check`), before anything is written.
    """
    check(source)
    out = Path(out)
    stored = dict(source.composer.specs) | dict(source.vae.specs)
    ours = shapes(source.config)
    specs = {path: Spec(shape, np.dtype("float32")) for path, shape in ours.items()}
    listed = list(pieces(source.config))
    specs |= {piece.path: Spec(ours[piece.path], stored[piece.key].dtype) for piece in listed}
    with streaming_writer(out / OURS, specs, weights.header(source.config, notes)) as write:
        for piece in listed:
            # No name for the tensor: it would live on until the next one is read.
            tensors = source.vae if piece.path.startswith("vae/") else source.composer
            write(piece.path, piece.turn.inward(tensors[piece.key]), piece.layer)
        for path in source.extra:
            if not _is_adapter(path):
                write(path, source.extra[path])
    tables = {key: source.composer.specs[key] for key in fixed_tables(source.config) if key in source.composer}
    with streaming_writer(out / ASIDE / TABLES, tables, {}) as write:
        for key in tables:
            write(key, source.composer[key])
    for path in source.carried:
        shutil.copyfile(path, out / ASIDE / path.name)
    (out / LORA).unlink(missing_ok=True)  # another model's
    adapters = {path: source.extra.specs[path] for path in source.extra if _is_adapter(path)}
    if not adapters:
        return [out / OURS]
    with streaming_writer(out / LORA, adapters, source.extra.metadata) as write:
        for path in adapters:
            write(path, source.extra[path])
    return [out / OURS, out / LORA]


def export_bagel(source: str | Path, out: str | Path) -> list[Path]:
    """Writes a folder that BAGEL's own code loads, from our weights; returns its files.

    Args:
        source: a folder that `import_bagel` or training wrote, or a `.safetensors` file of ours.
        out: gets ema.safetensors, ae.safetensors, the JSON files, the tokenizer where there is one, and
            macro_extra.safetensors if the model has parameters that BAGEL does not have, or adapters beside it.

    Raises:
        UserError: no weights of ours, or weights without a composer or a VAE.
    """
    source, out = Path(source), Path(out)
    path = source / OURS if source.is_dir() else source
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
    listed, aside = list(pieces(config)), path.parent / ASIDE
    written = []
    for name, vae in (("ema.safetensors", False), (folders.AUTOENCODER, True)):
        mine = [piece for piece in listed if piece.path.startswith("vae/") == vae]
        specs = {piece.key: Spec(piece.shape, reader.specs[piece.path].dtype) for piece in mine}
        tables = {} if vae else _tables(config, aside, reader.specs["composer/planner/embed"].dtype)
        specs |= {key: Spec(table.shape, table.dtype) for key, table in tables.items()}
        with streaming_writer(out / name, specs, {"format": "pt"}) as write:
            for piece in mine:
                write(piece.key, piece.turn.outward(reader.read(piece.path, piece.layer)))
            for key, table in tables.items():
                write(key, table)
        written.append(out / name)
    beside = path.with_name(LORA)
    adapters = TensorReader(beside) if path.name == OURS and beside.is_file() else None
    alone = {name: reader for name in sorted(ours.keys() - {piece.path for piece in listed})}
    alone |= {name: adapters for name in adapters or () if _is_adapter(name)}
    (out / folders.EXTRA).unlink(missing_ok=True)  # another model's
    if alone:
        specs = {name: file.specs[name] for name, file in alone.items()}
        with streaming_writer(out / folders.EXTRA, specs, adapters.metadata if adapters else {}) as write:
            for name, file in alone.items():
                write(name, file[name])
        written.append(out / folders.EXTRA)
    return written + _small_files(config, aside, out)


def _tables(config: ModelConfig, aside: Path, dtype: np.dtype) -> dict[str, np.ndarray]:
    """The fixed tables as they came, or computed for a model that was never BAGEL's."""
    if (aside / TABLES).is_file():
        return dict(TensorReader(aside / TABLES))
    tables = {}
    for key, (places, width) in fixed_tables(config).items():
        side = config.latent_side if key == folders.LATENT_TABLE else config.vision.side
        tables[key] = np.asarray(position_embedding(jnp.arange(places)[None], side, width)[0]).astype(dtype)
    return tables


def _small_files(config: ModelConfig, aside: Path, out: Path) -> list[Path]:
    """JSON files and the tokenizer: those that came along; configs that did not are made from the sizes."""
    carried = [aside / name for name in folders.CONFIGS + folders.CARRIED if (aside / name).is_file()]
    for path in carried:
        shutil.copyfile(path, out / path.name)
    written = [out / path.name for path in carried]
    for name, values in folders.json_configs(config).items():
        if out / name not in written:
            atomic_write(out / name, json.dumps(values, indent=2) + "\n")
            written.append(out / name)
    return written
