"""Sizes of the model, decoded from names such as "XS/64", "S/256" or "7B/1024".

A name is `<size>/<pixels>`. The size selects the widths of the Mixture-of-Transformers, the vision encoder and the
VAE; the pixels are the longest side of a target and so set the size of the latent position table (one latent
token covers 16 x 16 pixels: VAE stride 8, latent patch 2). "7B" has the released sizes of BAGEL-7B-MoT; "0.5B",
"1.5B" and "3B" have the widths of the Qwen2.5 models of that size.
Read next: `macro/models/composer.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from macro.nn.layers import REMAT_CHOICES
from macro.utils.errors import UserError

PIXELS_PER_LATENT_TOKEN = 16


@dataclasses.dataclass(frozen=True)
class LLMConfig:
    """Sizes of the decoder, the same for both experts. `heads` query heads share `kv_heads` key-value heads (GQA)."""

    width: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    rope_theta: float = 1e6
    eps: float = 1e-6


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """SigLIP in NaViT form. `side` is the number of patches along a side of the position table."""

    width: int
    mlp: int
    layers: int
    heads: int
    patch: int = 14
    side: int = 70
    eps: float = 1e-6


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """The FLUX autoencoder. Normalised latents are `scale * (z - shift)`.

    `groups` is the number of groups of group normalisation. 32 channels in 32 groups would normalise each channel
    by itself and lose colour and brightness, so narrow autoencoders use fewer.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    z: int = 16
    groups: int = 32
    scale: float = 0.3611
    shift: float = 0.1159

    @property
    def stride(self) -> int:
        """Pixels per latent along a side."""
        return 2 ** (len(self.multipliers) - 1)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that determines the parameters' shapes and the arithmetic of a composer.

    `binding_init` is the standard deviation of the binding table at initialisation: 0 leaves an imported model
    unchanged; training from scratch needs 1, the scale of the position tables, or the model is slow to use the images
    of its subjects. `dtype` is that of activations ("float32", "bfloat16"); parameters are float32. `remat` selects
    what the backward pass recomputes in each layer (`macro/nn/layers.py`). `timestep_shift` is the shift of training
    times.
    """

    llm: LLMConfig
    vision: VisionConfig
    vae: VAEConfig
    latent_patch: int = 2
    latent_side: int = 64
    subjects: int = 12
    binding: bool = True
    binding_init: float = 0.0
    dtype: str = "float32"
    remat: str = "none"
    timestep_shift: float = 1.0

    def __post_init__(self):
        if self.remat not in REMAT_CHOICES:
            raise UserError(f"model.remat={self.remat!r}: choose one of {', '.join(REMAT_CHOICES)}")

    @property
    def latent_channels(self) -> int:
        """Channels of a latent token."""
        return self.latent_patch**2 * self.vae.z

    @property
    def pixels_per_token(self) -> int:
        """Pixels along a side of the square that a latent token covers."""
        return self.latent_patch * self.vae.stride


_SMALL_VAE = VAEConfig(channels=32, multipliers=(1, 1, 2, 4), res_blocks=1, groups=8)
_SMALL_VOCAB = 1536
_QWEN_VOCAB = 151936
_SIGLIP = VisionConfig(1152, 4304, 26, 16)

SIZES: dict[str, tuple[LLMConfig, VisionConfig, VAEConfig]] = {
    "XXS": (
        LLMConfig(64, 160, 2, 4, 2, 16, _SMALL_VOCAB),
        VisionConfig(64, 160, 1, 2, patch=16, side=8),
        _SMALL_VAE,
    ),
    "XS": (
        LLMConfig(192, 512, 6, 4, 2, 48, _SMALL_VOCAB),
        VisionConfig(128, 384, 2, 4, patch=16, side=8),
        _SMALL_VAE,
    ),
    "S": (
        LLMConfig(384, 1024, 8, 6, 2, 64, _SMALL_VOCAB),
        VisionConfig(256, 768, 4, 4, patch=16, side=16),
        VAEConfig(channels=64, multipliers=(1, 1, 2, 4), res_blocks=1, groups=16),
    ),
    "M": (
        LLMConfig(768, 2048, 12, 12, 4, 64, _SMALL_VOCAB),
        VisionConfig(512, 1536, 8, 8, patch=14, side=32),
        VAEConfig(channels=64, multipliers=(1, 2, 4, 4), res_blocks=1, groups=16),
    ),
    "0.5B": (LLMConfig(896, 4864, 24, 14, 2, 64, _QWEN_VOCAB), _SIGLIP, VAEConfig()),
    "1.5B": (LLMConfig(1536, 8960, 28, 12, 2, 128, _QWEN_VOCAB), _SIGLIP, VAEConfig()),
    "3B": (LLMConfig(2048, 11008, 36, 16, 2, 128, _QWEN_VOCAB), _SIGLIP, VAEConfig()),
    "7B": (LLMConfig(3584, 18944, 28, 28, 4, 128, 152064), _SIGLIP, VAEConfig()),
}


def config_from_name(name: str, **overrides) -> ModelConfig:
    """The configuration named `name`, for example "7B/1024".

    Args:
        name: `<size>/<pixels>`; pixels is a multiple of 16.
        **overrides: fields of `ModelConfig`; a mapping for `llm`, `vision` or `vae` replaces single fields of
            that part, for example `llm={"vocab": 1200}`.

    Raises:
        UserError: unknown size, pixels that are no multiple of 16, or an unknown field.
    """
    size, _, pixels = name.partition("/")
    if size not in SIZES or not pixels.isdigit() or int(pixels) % PIXELS_PER_LATENT_TOKEN or int(pixels) == 0:
        raise UserError(
            f"model.variant={name!r}: expected <size>/<pixels> with a size of {', '.join(SIZES)} "
            f"and pixels a multiple of {PIXELS_PER_LATENT_TOKEN}, such as 'XS/128'"
        )
    llm, vision, vae = SIZES[size]
    config = ModelConfig(llm, vision, vae, latent_side=int(pixels) // PIXELS_PER_LATENT_TOKEN)
    return replace_nested(config, overrides)


def replace_nested(config, changes: Mapping):
    """A copy of a (nested) configuration dataclass with `changes`. Raises UserError for unknown fields."""
    known = {field.name for field in dataclasses.fields(config)}
    for name in changes:
        if name not in known:
            raise UserError(f"model.{name}: no such field; known are {', '.join(sorted(known))}")
    made = {}
    for name, value in changes.items():
        current = getattr(config, name)
        if dataclasses.is_dataclass(current) and not dataclasses.is_dataclass(value):
            value = replace_nested(current, value)
        elif isinstance(current, tuple):
            value = tuple(value)
        made[name] = value
    return dataclasses.replace(config, **made)


# The fields that determine the shapes and the meaning of a composer's parameters (except the layout binding, which
# starts at zero in a model that lacks it).
COMPOSER_SIZES = ("llm", "vision", "latent_patch", "latent_side", "subjects")
# Fields of the autoencoder's config that belong to the model trained on its latents.
_LATENT_STATISTICS = ("scale", "shift")


def first_difference(found: Any, wanted: Any, fields: Iterable[str]) -> tuple[str, Any, Any] | None:
    """(dotted name, value of `found`, value of `wanted`) of the first field that differs; None if none does."""
    for name in fields:
        mine, other = getattr(found, name), getattr(wanted, name)
        if dataclasses.is_dataclass(mine):
            inner = [field.name for field in dataclasses.fields(mine) if field.name not in _LATENT_STATISTICS]
            difference = first_difference(mine, other, inner)
            if difference:
                return f"{name}.{difference[0]}", *difference[1:]
        elif mine != other:
            return name, mine, other
    return None


def to_dict(config: ModelConfig) -> dict:
    """A configuration as a plain dict, as stored with weights; `from_dict` is the inverse."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping) -> ModelConfig:
    """The configuration that `to_dict` wrote."""
    values = dict(values)
    parts = {"llm": LLMConfig, "vision": VisionConfig, "vae": VAEConfig}
    for name, part in parts.items():
        fields = dict(values[name])
        if "multipliers" in fields:
            fields["multipliers"] = tuple(fields["multipliers"])
        values[name] = part(**fields)
    if isinstance(values["remat"], bool):  # files from before there were several policies
        values["remat"] = "full" if values["remat"] else "none"
    return ModelConfig(**values)
