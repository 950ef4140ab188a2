"""A BAGEL checkpoint on disk, and the sizes of its model.

    llm_config.json  vit_config.json     widths and heads, in Hugging Face's format
    ema.safetensors | model.safetensors | model.safetensors.index.json and its shards
    ae.safetensors                       the FLUX autoencoder
    config.json                          optional; sections `bagel` and `ae` with sizes found nowhere else
    macro_extra.safetensors              optional; parameters that only macro has (binding, LoRA), under our names
    the files of COPIED_FILES            optional; the tokenizer and the like, copied unread

Sizes that the JSON files lack are derived from the tensors: the VAE's widths, the sides of the position tables, the
latent patch, the number of vision layers (the released vit_config.json says 27, but 26 are stored).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from macro.models.variants import LLMConfig, ModelConfig, VAEConfig, VisionConfig
from macro.utils.errors import UserError
from macro.utils.streaming_safetensors import Spec, TensorReader

WEIGHTS = ("ema.safetensors", "model.safetensors.index.json", "model.safetensors")
AUTOENCODER = "ae.safetensors"
EXTRA = "macro_extra.safetensors"
CONFIGS = ("llm_config.json", "vit_config.json")
COPIED_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip

# Fixed tables that BAGEL stores and we compute.
LATENT_TABLE, VISION_TABLE = "latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed"


class Tensors(Mapping):
    """The tensors of one or several safetensors files, by name."""

    def __init__(self, files: Iterable[TensorReader]):
        self._file = {name: file for file in files for name in file.specs}
        self.specs: dict[str, Spec] = {name: file.specs[name] for name, file in self._file.items()}

    def __getitem__(self, name: str):
        return self._file[name].read(name)

    def __iter__(self):
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


@dataclass(frozen=True)
class BagelFolder:
    """An opened checkpoint; no tensor has been read.

    Attributes:
        path: the folder. config: the model's sizes; `binding` is set if `extra` holds a binding table.
        composer, vae: BAGEL's tensors. extra: our own, may be empty.
        copied_files: files to copy unread.
    """

    path: Path
    config: ModelConfig
    composer: Tensors
    vae: Tensors
    extra: Mapping
    copied_files: tuple[Path, ...]


def open_folder(path: str | Path, max_latent_size: int | None = None) -> BagelFolder:
    """Opens a checkpoint and determines the sizes of its model.

    Args:
        max_latent_size: required latent tokens along a side; None: as stored.

    Raises:
        UserError: a file is missing, damaged or a pickle; a size is missing or contradictory.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"--source={path}: no such folder; name one that holds ema.safetensors and llm_config.json")
    llm, vit = (read_json(path / name) for name in CONFIGS)
    more = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    composer, vae = Tensors(weight_files(path)), Tensors([TensorReader(path / AUTOENCODER)])
    extra = TensorReader(path / EXTRA) if (path / EXTRA).is_file() else {}
    bagel, ae = (more.get(name) if isinstance(more.get(name), dict) else {} for name in ("bagel", "ae"))
    autoencoder = vae_config(path / AUTOENCODER, vae.specs, ae)
    latent_in = _shape(path, composer, "vae2llm.weight")[1]
    config = ModelConfig(
        llm=llm_config(path / CONFIGS[0], llm),
        vision=_vision(path / CONFIGS[1], vit, composer),
        vae=autoencoder,
        latent_patch=_root(latent_in // autoencoder.z, f"{path}: vae2llm.weight's {latent_in} inputs"),
        latent_side=_latent_side(path, composer, bagel, max_latent_size),
        binding="composer/binding" in extra,
        timestep_shift=float(bagel.get("timestep_shift", 1.0)),
    )
    copied_files = tuple(path / name for name in CONFIGS + COPIED_FILES if (path / name).is_file())
    return BagelFolder(path, config, composer, vae, extra, copied_files)


def weight_files(path: Path) -> list[TensorReader]:
    """The file or files of a folder that hold the model.

    Raises:
        UserError: there are none, or a pickle.
    """
    for name in WEIGHTS:
        if not (path / name).is_file():
            continue
        if not name.endswith(".index.json"):
            return [TensorReader(path / name)]
        shards = sorted(set(read_json(path / name)["weight_map"].values()))
        return [TensorReader(path / shard) for shard in shards]
    pickles = [file.name for ending in ("*.bin", "*.pt", "*.pth") for file in path.glob(ending)]
    if pickles:
        raise UserError(f"{path / pickles[0]}: a pickle, which could run any program; convert it to safetensors first")
    raise UserError(f"{path}: holds no {' or '.join(WEIGHTS)}")


def read_json(path: Path) -> dict:
    """The content of a JSON file. Raises UserError if it is none."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error})") from None


def _field(path: Path, values: Mapping, name: str):
    if name not in values:
        raise UserError(f"{path}: the field {name!r} is missing")
    return values[name]


def _shape(path: Path, tensors: Tensors, key: str) -> tuple[int, ...]:
    if key not in tensors.specs:
        raise UserError(f"{path}: there is no tensor {key}; is it a BAGEL checkpoint?")
    return tensors.specs[key].shape


def _root(number: int, what: str) -> int:
    side = isqrt(number)
    if side * side != number or not number:
        raise UserError(f"{what} are no square number")
    return side


def count(keys: Iterable[str], pattern: str) -> int:
    """The number of numbered members: one more than the largest number that the pattern captures."""
    return 1 + max((int(m[1]) for key in keys if (m := re.match(pattern, key))), default=-1)


def llm_config(path: Path, values: Mapping) -> LLMConfig:
    """The sizes in the `values` of a Qwen2 config; `path` names it in errors."""
    get = functools.partial(_field, path, values)
    heads = get("num_attention_heads")
    return LLMConfig(
        width=get("hidden_size"),
        mlp=get("intermediate_size"),
        layers=get("num_hidden_layers"),
        heads=heads,
        kv_heads=get("num_key_value_heads"),
        head_dim=values.get("head_dim") or get("hidden_size") // heads,
        vocab=get("vocab_size"),
        rope_theta=float(get("rope_theta")),
        eps=float(get("rms_norm_eps")),
    )


def _vision(path: Path, values: Mapping, tensors: Tensors) -> VisionConfig:
    said = _field(path, values, "num_hidden_layers")
    layers = count(tensors, r"vit_model\.vision_model\.encoder\.layers\.(\d+)\.")
    if layers not in (said, said - 1):
        raise UserError(
            f"{path}: num_hidden_layers is {said}, but the checkpoint has {layers} vision layers (BAGEL keeps all, "
            "or all but the last)"
        )
    positions = _shape(path.parent, tensors, "vit_model.vision_model.embeddings.position_embedding.weight")[0]
    return vision_config(path, values, layers, positions)


def vision_config(path: Path, values: Mapping, layers: int, positions: int) -> VisionConfig:
    """The sizes from a SigLIP config (`path` in errors) and the numbers of layers and of rows of the position table."""
    get = functools.partial(_field, path, values)
    return VisionConfig(
        width=get("hidden_size"),
        mlp=get("intermediate_size"),
        layers=layers,
        heads=get("num_attention_heads"),
        patch=get("patch_size"),
        side=_root(positions, f"{path.parent}: the {positions} vision positions"),
        eps=float(values.get("layer_norm_eps", 1e-6)),
    )


def vae_config(path: Path, specs: Mapping[str, Spec], values: Mapping) -> VAEConfig:
    """The FLUX autoencoder's sizes from its tensors; `values` may hold `scale_factor` and `shift_factor`."""
    for key in ("encoder.conv_in.weight", "encoder.conv_out.weight"):
        if key not in specs:
            raise UserError(f"{path}: there is no tensor {key}; is it the FLUX autoencoder?")
    channels, levels = specs["encoder.conv_in.weight"].shape[0], count(specs, r"encoder\.down\.(\d+)\.")
    widths = [specs.get(f"encoder.down.{level}.block.0.conv2.weight") for level in range(levels)]
    if None in widths:
        raise UserError(f"{path}: encoder.down.{widths.index(None)}.block.0.conv2.weight is missing")
    return VAEConfig(
        channels=channels,
        multipliers=tuple(width.shape[0] // channels for width in widths),
        res_blocks=count(specs, r"encoder\.down\.0\.block\.(\d+)\."),
        z=specs["encoder.conv_out.weight"].shape[0] // 2,
        scale=float(values.get("scale_factor", VAEConfig.scale)),
        shift=float(values.get("shift_factor", VAEConfig.shift)),
    )


def _latent_side(path: Path, tensors: Tensors, bagel: Mapping, wanted: int | None) -> int:
    """Latent tokens along a side: from the stored table, else config.json, else `wanted`, else the released 64."""
    said = {"config.json's bagel.max_latent_size": bagel.get("max_latent_size"), "--max_latent_size": wanted}
    if LATENT_TABLE in tensors.specs:
        rows = tensors.specs[LATENT_TABLE].shape[0]
        side = _root(rows, f"{path}: the {rows} rows of {LATENT_TABLE}")
    else:
        side = next((size for size in said.values() if size is not None), 64)
    for where, size in said.items():
        if size not in (None, side):
            raise UserError(f"{path}: {LATENT_TABLE} is for a max_latent_size of {side}, but {where} is {size}")
    return side


def json_configs(config: ModelConfig) -> dict[str, dict]:
    """File name -> its content for a model of these sizes."""
    llm, vision = config.llm, config.vision
    language = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": llm.width,
        "intermediate_size": llm.mlp,
        "num_hidden_layers": llm.layers,
        "num_attention_heads": llm.heads,
        "num_key_value_heads": llm.kv_heads,
        "head_dim": llm.head_dim,
        "vocab_size": llm.vocab,
        "rope_theta": llm.rope_theta,
        "rms_norm_eps": llm.eps,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    sight = {
        "model_type": "siglip_vision_model",
        "hidden_size": vision.width,
        "intermediate_size": vision.mlp,
        "num_hidden_layers": vision.layers + 1,  # BAGEL's loader subtracts one from this
        "num_attention_heads": vision.heads,
        "patch_size": vision.patch,
        "image_size": vision.side * vision.patch,
        "layer_norm_eps": vision.eps,
    }
    rest = {
        "bagel": {
            "latent_patch_size": config.latent_patch,
            "max_latent_size": config.latent_side,
            "vit_max_num_patch_per_side": vision.side,
            "timestep_shift": config.timestep_shift,
        },
        "ae": {"scale_factor": config.vae.scale, "shift_factor": config.vae.shift},
    }
    return {CONFIGS[0]: language, CONFIGS[1]: sight, "config.json": rest}
