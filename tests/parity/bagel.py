"""The recorded tiny BAGEL: where its files are, and its weights under this library's names.

`BAGEL_GOLDENS` names the folder; without it `../shared/parity/bagel` beside the repository is tried.
The table below reads: upstream key (a regular expression) -> our path, and what happens to the axes.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from macro.models.variants import VAEConfig, VisionConfig

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "parity" / "bagel"
FOLDER = Path(os.environ.get("BAGEL_GOLDENS", _BESIDE))
needs_goldens = pytest.mark.skipif(not FOLDER.is_dir(), reason="no recorded BAGEL (BAGEL_GOLDENS)")

TOLERANCE = 2e-5  # of the tensor's scale, float32, matmul precision "highest"


def linear(weight):
    """[out, in] -> [in, out]"""
    return weight.T


def convolution(weight):
    """[out, in, kh, kw] -> [kh, kw, in, out]; 1x1 convolutions are dense layers here."""
    return linear(weight[:, :, 0, 0]) if weight.shape[2:] == (1, 1) else weight.transpose(2, 3, 1, 0)


def same(value):
    return value


# After `slashed`: encoder.down.0.block.1.conv2.weight has become encoder/down_0/block_1/conv2/weight.
VAE_KEYS = [
    (r"(.*/norm\w*)/weight", r"\1/scale", same),
    (r"(.*)/weight", r"\1/kernel", convolution),
    (r"(.*)/bias", r"\1/bias", same),
]

# `#` in a path marks the layer index: all layers of one path are stacked along a new first axis.
_VISION = r"vit_model\.vision_model"
_LAYER = _VISION + r"\.encoder\.layers\.(\d+)"
_MATRIX = _LAYER + r"\.(?:self_attn|mlp)\.(\w+?)(?:_proj)?"
VISION_KEYS = [
    (_VISION + r"\.embeddings\.patch_embedding\.weight", "planner/vision/patch_embedding/kernel", linear),
    (_VISION + r"\.embeddings\.patch_embedding\.bias", "planner/vision/patch_embedding/bias", same),
    (_VISION + r"\.embeddings\.position_embedding\.weight", "planner/vision/position_embedding", same),
    (_LAYER + r"\.layer_norm(\d)\.weight", r"planner/vision/layers/#\1/norm\2/scale", same),
    (_LAYER + r"\.layer_norm(\d)\.bias", r"planner/vision/layers/#\1/norm\2/bias", same),
    (_MATRIX + r"\.weight", r"planner/vision/layers/#\1/\2/kernel", linear),
    (_MATRIX + r"\.bias", r"planner/vision/layers/#\1/\2/bias", same),
    (_VISION + r"\.post_layernorm\.weight", "planner/vision/post_norm/scale", same),
    (_VISION + r"\.post_layernorm\.bias", "planner/vision/post_norm/bias", same),
    (r"connector\.(fc\d)\.weight", r"planner/connector/\1/kernel", linear),
    (r"connector\.(fc\d)\.bias", r"planner/connector/\1/bias", same),
]


def slashed(key: str) -> str:
    """Upstream's numbered list members become numbered siblings: `down.0.block` -> `down_0/block`."""
    return re.sub(r"\.(\d+)", r"_\1", key).replace(".", "/")


def convert(tensors: dict, table: list) -> dict:
    """Renames and turns every tensor whose key the table knows; the rest is left out."""
    flat, layers = {}, {}
    for key, value in tensors.items():
        for pattern, target, turn in table:
            match = re.fullmatch(pattern, key)
            if match is None:
                continue
            path, value = match.expand(target), turn(value)
            if "#" in path:
                index = int(re.search(r"#(\d+)", path)[1])
                layers.setdefault(re.sub(r"/#\d+", "", path), {})[index] = value
            else:
                flat[path] = value
            break
    for path, values in layers.items():
        flat[path] = np.stack([values[index] for index in range(len(values))])
    return unflatten_dict(flat, sep="/")


def load_tree(folder: Path = FOLDER) -> dict:
    """`{"composer": {"planner": {"vision": ..., "connector": ...}}, "vae": ...}`, float32 numpy arrays."""
    vae = {slashed(key): value for key, value in load_file(folder / "ae_tiny.safetensors").items()}
    return {
        "composer": convert(load_file(folder / "bagel_tiny.safetensors"), VISION_KEYS),
        "vae": convert(vae, VAE_KEYS),
    }


def sizes(folder: Path = FOLDER) -> dict:
    """The recorded model's `config.json`."""
    return json.loads((folder / "config.json").read_text())


def vision_config(folder: Path = FOLDER) -> VisionConfig:
    vit, bagel = sizes(folder)["vit"], sizes(folder)["bagel"]
    return VisionConfig(
        width=vit["hidden_size"],
        mlp=vit["intermediate_size"],
        layers=vit["num_hidden_layers"],
        heads=vit["num_attention_heads"],
        patch=vit["patch_size"],
        side=bagel["vit_max_num_patch_per_side"],
        eps=vit["layer_norm_eps"],
    )


def vae_config(folder: Path = FOLDER) -> VAEConfig:
    ae = sizes(folder)["ae"]
    return VAEConfig(
        channels=ae["ch"],
        multipliers=tuple(ae["ch_mult"]),
        res_blocks=ae["num_res_blocks"],
        z=ae["z_channels"],
        scale=ae["scale_factor"],
        shift=ae["shift_factor"],
    )


def assert_close(ours, recorded, name: str):
    """Within `TOLERANCE` of the recorded tensor's largest magnitude."""
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    assert ours.shape == recorded.shape, f"{name}: shape {ours.shape}, recorded {recorded.shape}"
    scale = np.abs(recorded).max()
    worst = np.abs(ours - recorded).max() / scale
    assert worst <= TOLERANCE, f"{name}: off by {worst:.2e} of its scale {scale:.3g}"
