"""Upcycles pretrained weights into a new Mixture-of-Transformers: Qwen2.5 for both experts, SigLIP as vision encoder.

    language model   every layer and the final norm twice; norms of queries and keys, if missing, are ones
    SigLIP           all layers but the last; its patch convolution as a linear layer over (row, column, channel)
    new              connector, time embedding and latent input random; latent output zero; binding by the config

BAGEL was initialised in the same way (its `init_moe`; features of the penultimate layer). Read next: `convert.py`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from macro.models.checkpoints import weights
from macro.models.checkpoints.bagel import checkpoint
from macro.models.checkpoints.bagel.checkpoint import Tensors
from macro.models.checkpoints.bagel.convert import MACRO_WEIGHTS, TensorMapping, shapes, tensor_mappings
from macro.models.variants import ModelConfig
from macro.utils.errors import UserError
from macro.utils.streaming_safetensors import Spec, TensorReader, streaming_writer

_LANGUAGE, _VIT = "language_model.", "vit_model."
_PATCHES = "vision_model.embeddings.patch_embedding.weight"

Read = Callable[[], np.ndarray]


def start_from(
    qwen: str | Path, siglip: str | Path, vae: str | Path, out: str | Path, latent_side: int, seed: int, notes: Mapping
) -> Path:
    """Writes `<out>/model.safetensors`; returns it.

    Args:
        qwen, siglip: folders in Hugging Face's layout: config.json and safetensors, whole or sharded.
        vae: the FLUX autoencoder's file.
        latent_side: the most latent tokens along a side of an image.
        seed: of the new parameters.

    Raises:
        UserError: a file or tensor is missing or of another shape; raised before anything is written.
    """
    language, sight = Tensors(checkpoint.weight_files(Path(qwen))), Tensors(checkpoint.weight_files(Path(siglip)))
    autoencoder = TensorReader(vae)
    config = _config(Path(qwen), Path(siglip), autoencoder, sight, latent_side)
    listed = list(tensor_mappings(config))
    sources = {mapping.key: _source(mapping, language, sight, autoencoder, seed) for mapping in listed}
    wrong = [
        f"{mapping.key} {sources[mapping.key][0].shape}, not {mapping.shape}"
        for mapping in listed
        if sources[mapping.key][0].shape != mapping.shape
    ]
    if wrong:
        raise UserError(f"{qwen}, {siglip}, {vae}: {len(wrong)} of another shape: {'; '.join(wrong[:12])}")
    ours, spoken = shapes(config), language.specs["model.embed_tokens.weight"].dtype
    specs = {path: Spec(shape, spoken) for path, shape in ours.items()}
    for mapping in listed:
        if mapping.path.startswith("vae/"):
            specs[mapping.path] = Spec(ours[mapping.path], autoencoder.specs[mapping.key].dtype)
    path = Path(out) / MACRO_WEIGHTS
    with streaming_writer(path, specs, weights.header(config, notes)) as write:
        for mapping in listed:
            tensor = sources[mapping.key][1]().astype(specs[mapping.path].dtype)
            write(mapping.path, mapping.transform.to_flax(tensor), mapping.layer)
        write("composer/binding", np.zeros(ours["composer/binding"], spoken))
    return path


def _config(qwen: Path, siglip: Path, vae: TensorReader, sight: Tensors, latent_side: int) -> ModelConfig:
    values = checkpoint.read_json(siglip / "config.json")
    values = values.get("vision_config", values)
    positions = _stored(sight, siglip, "vision_model.embeddings.position_embedding.weight")[0].shape[0]
    layers = checkpoint.count(sight, r"vision_model\.encoder\.layers\.(\d+)\.") - 1
    return ModelConfig(
        llm=checkpoint.llm_config(qwen / "config.json", checkpoint.read_json(qwen / "config.json")),
        vision=checkpoint.vision_config(siglip / "config.json", values, layers, positions),
        vae=checkpoint.vae_config(vae.path, vae.specs, {}),
        latent_side=latent_side,
    )


def _source(
    mapping: TensorMapping, language: Tensors, sight: Tensors, vae: TensorReader, seed: int
) -> tuple[Spec, Read]:
    """The source of a BAGEL tensor: its shape there, and the function that reads or makes it.

    Raises:
        UserError: none of the folders has it.
    """
    key = mapping.key
    if mapping.path.startswith("vae/"):
        return _stored(vae, vae.path, key)
    if key.startswith(_LANGUAGE):
        name = key.removeprefix(_LANGUAGE).replace("_moe_gen", "")
        if re.search(r"[qk]_norm", name) and name not in language.specs:
            return Spec(mapping.shape, np.dtype("float32")), lambda: np.ones(mapping.shape, np.float32)
        if name == "lm_head.weight" and name not in language.specs:
            name = "model.embed_tokens.weight"  # tied
        return _stored(language, "the language model", name)
    if key.startswith(_VIT):
        name = key.removeprefix(_VIT)
        spec, read = _stored(sight, "SigLIP", name)
        if name == _PATCHES and len(spec.shape) == 4:
            return Spec(mapping.shape, spec.dtype), lambda: read().transpose(0, 2, 3, 1).reshape(mapping.shape)
        return spec, read
    return Spec(mapping.shape, np.dtype("float32")), lambda: _new(mapping, seed)


def _stored(tensors: Tensors | TensorReader, where, name: str) -> tuple[Spec, Read]:
    if name not in tensors.specs:
        raise UserError(f"{where}: there is no tensor {name}")
    return tensors.specs[name], lambda: tensors[name]


def _new(mapping: TensorMapping, seed: int) -> np.ndarray:
    """A linear layer's weight [out, in] with variance 1 / in, or zeros: biases, and the latent output."""
    if len(mapping.shape) == 1 or "latent_out" in mapping.path:
        return np.zeros(mapping.shape, np.float32)
    rng = np.random.default_rng([seed, zlib.crc32(mapping.path.encode())])
    return (rng.normal(size=mapping.shape) / np.sqrt(mapping.shape[1])).astype(np.float32)
