"""The mapping between the tensors of a BAGEL checkpoint and our parameters, in both directions.

A row is BAGEL's key, our path, and the transform of the axes. `{name}` stands for the same text on both sides;
`{name:regex}` defines once what it matches (digits by default). `{layer}` is no part of our path: it is the index of a
layer's tensor along the first axis of ours, where `scan` stacks all layers.

BAGEL's linear layers hold [out, in], ours [in, out]; its convolutions [out, in, h, w], ours [h, w, in, out];
its 1 x 1 convolutions are dense layers here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

Row = tuple[str, str, str]


def _layer(key: str, path: str, bias: bool = True, transform: str = "linear") -> list[Row]:
    """Weight and bias of a linear layer or convolution."""
    rows = [(f"{key}.weight", f"{path}/kernel", transform)]
    return [*rows, (f"{key}.bias", f"{path}/bias", "same")] if bias else rows


def _norm(key: str, path: str, bias: bool) -> list[Row]:
    rows = [(f"{key}.weight", f"{path}/scale", "same")]
    return [*rows, (f"{key}.bias", f"{path}/bias", "same")] if bias else rows


def _expert(suffix: str, expert: str) -> list[Row]:
    """Rows of one expert: BAGEL marks the generation expert's modules with a suffix."""
    llm, ours = "language_model.model.layers.{layer}", f"composer/mot/blocks/{{layer}}/{expert}"
    return [
        *_norm(f"{llm}.input_layernorm{suffix}", f"{ours}/input_norm", bias=False),
        *_norm(f"{llm}.post_attention_layernorm{suffix}", f"{ours}/post_norm", bias=False),
        *_norm(f"{llm}.self_attn.{{m:[qk]}}_norm{suffix}", f"{ours}/{{m}}_norm", bias=False),
        *_layer(f"{llm}.self_attn.{{m:[qkv]}}_proj{suffix}", f"{ours}/{{m}}"),
        *_layer(f"{llm}.self_attn.o_proj{suffix}", f"{ours}/o", bias=False),
        *_layer(f"{llm}.mlp{suffix}.{{m:gate|up|down}}_proj", f"{ours}/{{m}}", bias=False),
        *_norm(f"language_model.model.norm{suffix}", f"composer/mot/{expert}_norm", bias=False),
    ]


_VIT, _VISION = "vit_model.vision_model", "composer/planner/vision"

# ema.safetensors
COMPOSER: list[Row] = [
    *_expert("", "und"),
    *_expert("_moe_gen", "gen"),
    ("language_model.model.embed_tokens.weight", "composer/planner/embed", "same"),
    ("language_model.lm_head.weight", "composer/planner/head", "same"),
    *_layer(f"{_VIT}.embeddings.patch_embedding", f"{_VISION}/patch_embedding"),
    (f"{_VIT}.embeddings.position_embedding.weight", f"{_VISION}/position_embedding", "same"),
    *_norm(f"{_VIT}.encoder.layers.{{layer}}.layer_norm{{n}}", f"{_VISION}/layers/{{layer}}/norm{{n}}", bias=True),
    *_layer(f"{_VIT}.encoder.layers.{{layer}}.self_attn.{{m:q|k|v|out}}_proj", f"{_VISION}/layers/{{layer}}/{{m}}"),
    *_layer(f"{_VIT}.encoder.layers.{{layer}}.mlp.{{m:fc[12]}}", f"{_VISION}/layers/{{layer}}/{{m}}"),
    *_norm(f"{_VIT}.post_layernorm", f"{_VISION}/post_norm", bias=True),
    *_layer("connector.{m:fc[12]}", "composer/planner/connector/{m}"),
    *_layer("time_embedder.mlp.0", "composer/diffusion_head/time/fc1"),
    *_layer("time_embedder.mlp.2", "composer/diffusion_head/time/fc2"),
    *_layer("vae2llm", "composer/diffusion_head/latent_in"),
    *_layer("llm2vae", "composer/diffusion_head/latent_out"),
]

_SIDE, _LEVEL = "{side:encoder|decoder}", "{side:encoder|decoder}.{way:down|up}.{l}"


def _residual(key: str, path: str) -> list[Row]:
    return [
        *_norm(f"{key}.norm{{n}}", f"{path}/norm{{n}}", bias=True),
        *_layer(f"{key}.conv{{n}}", f"{path}/conv{{n}}", transform="conv"),
        *_layer(f"{key}.nin_shortcut", f"{path}/nin_shortcut", transform="conv1"),
    ]


# ae.safetensors
VAE: list[Row] = [
    *_residual(f"{_LEVEL}.block.{{b}}", "vae/{side}/{way}_{l}/block_{b}"),
    *_residual(f"{_SIDE}.mid.block_{{b}}", "vae/{side}/mid/block_{b}"),
    *_layer(f"{_LEVEL}.{{m:downsample|upsample}}.conv", "vae/{side}/{way}_{l}/{m}/conv", transform="conv"),
    *_norm(f"{_SIDE}.mid.attn_1.norm", "vae/{side}/mid/attn_1/norm", bias=True),
    *_layer(f"{_SIDE}.mid.attn_1.{{m:q|k|v|proj_out}}", "vae/{side}/mid/attn_1/{m}", transform="conv1"),
    *_norm(f"{_SIDE}.norm_out", "vae/{side}/norm_out", bias=True),
    *_layer(f"{_SIDE}.{{m:conv_in|conv_out}}", "vae/{side}/{m}", transform="conv"),
]


class Transform(NamedTuple):
    """How axes change on import and on export."""

    to_flax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


TRANSFORMS = {
    "same": Transform(lambda x: x, lambda x: x),
    "linear": Transform(lambda x: x.T, lambda x: x.T),
    "conv": Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),
    "conv1": Transform(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None]),
}


class MappedName(NamedTuple):
    """The counterpart of a tensor: its name, the layer (None: not stacked), the transform."""

    name: str
    layer: int | None
    transform: Transform


@cache
def flax_param(key: str) -> MappedName | None:
    """Our parameter for BAGEL's tensor `key`; None for a key that matches no row."""
    for pattern, path, transform in _compiled("to_flax"):
        if match := pattern.fullmatch(key):
            fields = match.groupdict()
            layer = fields.pop("layer", None)
            return MappedName(path.format(**fields), None if layer is None else int(layer), TRANSFORMS[transform])
    return None


@cache
def torch_param(path: str, layer: int | None = None) -> MappedName | None:
    """BAGEL's tensor for (a layer of) our parameter `path`; None if BAGEL lacks it."""
    for pattern, key, transform in _compiled("to_torch"):
        if (match := pattern.fullmatch(path)) and ("{layer}" in key) == (layer is not None):
            return MappedName(key.format(**match.groupdict(), layer=layer), layer, TRANSFORMS[transform])
    return None


_FIELD = re.compile(r"\{(\w+)(?::([^{}]+))?\}")


@cache
def _compiled(direction: str) -> list[tuple[re.Pattern, str, str]]:
    """Every row as (pattern of one side's names, template of the other side's, transform)."""
    rows = []
    for key, path, transform in COMPOSER + VAE:
        # The regex of a field is on the key's side; our path has no field for the layer.
        kinds = {name: kind or r"\d+" for name, kind in _FIELD.findall(key)}
        path = path.replace("/{layer}", "")
        here, there = (key, path) if direction == "to_flax" else (path, key)
        rows.append((_pattern(here, kinds), _FIELD.sub(r"{\1}", there), transform))
    return rows


def _pattern(template: str, kinds: dict[str, str]) -> re.Pattern:
    """The template as a regular expression; a repeated field must match the same text."""
    out, at, seen = "", 0, set()
    for match in _FIELD.finditer(template):
        name = match[1]
        out += re.escape(template[at : match.start()])
        out += f"(?P={name})" if name in seen else f"(?P<{name}>{kinds[name]})"
        seen.add(name)
        at = match.end()
    return re.compile(out + re.escape(template[at:]))
