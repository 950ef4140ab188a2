"""The recorded model at other sizes, with the same results: what a check that has a size wired in would stumble on.

Sizes are changed in ways that leave the function as it is, so the recordings, moved to their new places, still hold:

    layers (LLM, ViT) and residual blocks (VAE)     more of them, which add zero
    MLP widths                                      more units, which are never heard
    key heads                                       each one twice
    sides of the position tables                    longer, so that a row of positions starts elsewhere

Widths themselves cannot be changed so: RMS norms and position tables would notice.
"""

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

LATENT_SIDE, VISION_SIDE = 11, 9
_LLM, _VIT = "language_model.model.layers", "vit_model.vision_model.encoder.layers"
_TABLE = "vit_model.vision_model.embeddings.position_embedding.weight"
_HEADED = re.compile(r".*layers\.\d+\.self_attn\.[kv]_proj(_moe_gen)?\.(weight|bias)")


def resize(source: Path, target: Path) -> None:
    """Writes the folder `source` to `target` with one layer more each, wider MLPs, larger position tables."""
    config = json.loads((source / "config.json").read_text())
    old_sides = config["bagel"]["max_latent_size"], config["bagel"]["vit_max_num_patch_per_side"]
    arrays = {path.stem: dict(np.load(path)) for path in source.glob("*.npz")}
    tensors = load_file(next(source.glob("bagel_*.safetensors")))
    grads = arrays["train_grads"]
    for tree in (tensors, grads):
        for part, depth in (("llm", _LLM), ("vit", _VIT)):
            _deeper(tree, depth, config[part]["num_hidden_layers"], is_gradient=tree is grads)
            _wider(tree, depth, config[part]["intermediate_size"], 16)
        tree[_TABLE] = _moved_rows(tree[_TABLE], old_sides[1], VISION_SIDE)
    width = config["llm"]["hidden_size"]
    tensors["latent_pos_embed.pos_embed"] = _sinusoids(LATENT_SIDE, width)
    tensors["vit_pos_embed.pos_embed"] = _sinusoids(VISION_SIDE, width)
    arrays["misc"]["latent_pos_embed"] = _sinusoids(LATENT_SIDE, width)
    _deeper_records(arrays, config)
    for fields in arrays.values():
        for name, values in fields.items():
            if name in ("packed_latent_position_ids", "gen_packed_vae_position_ids") or "pos_extrap" in name:
                fields[name] = _moved(values, old_sides[0], LATENT_SIDE)
            elif name == "packed_vit_position_ids":
                fields[name] = _moved(values, old_sides[1], VISION_SIDE)
    for part in ("llm", "vit"):
        config[part]["num_hidden_layers"] += 1
        config[part]["intermediate_size"] += 16
    config["ae"]["num_res_blocks"] += 1
    config["bagel"] |= {"max_latent_size": LATENT_SIDE, "vit_max_num_patch_per_side": VISION_SIDE}
    _write(source, target, config, tensors, arrays, more_blocks=True)


def double_key_heads(source: Path, target: Path) -> None:
    """Writes `source` to `target` with every key head twice. Gradients of keys and values then are shared out in a
    way that is not on record: they are left out."""
    config = json.loads((source / "config.json").read_text())
    heads = config["llm"]["num_key_value_heads"]
    arrays = {path.stem: dict(np.load(path)) for path in source.glob("*.npz")}
    tensors = load_file(next(source.glob("bagel_*.safetensors")))
    for key, value in tensors.items():
        if key.startswith("language_model") and _HEADED.fullmatch(key):
            by_head = value.reshape(heads, -1, *value.shape[1:])
            tensors[key] = np.repeat(by_head, 2, axis=0).reshape(-1, *value.shape[1:])
    arrays["train_grads"] = {
        key: value
        for key, value in arrays["train_grads"].items()
        if not (key.startswith("language_model") and _HEADED.fullmatch(key))
    }
    for name, values in arrays["infer"].items():
        if re.fullmatch(r"(ctx|cfgtext|cfgimg)_[kv]\d+", name):
            arrays["infer"][name] = np.repeat(values, 2, axis=1)
    config["llm"]["num_key_value_heads"] *= 2
    _write(source, target, config, tensors, arrays)


def _deeper(tree: dict, layers: str, count: int, is_gradient: bool) -> None:
    """One more layer at the end that adds zero: all of it is zero but the norms. Gradients of its output biases are
    those of the biases before it, which add to the same stream; all others are zero."""
    for key in [key for key in tree if key.startswith(f"{layers}.{count - 1}.")]:
        twin = key.replace(f"{layers}.{count - 1}.", f"{layers}.{count}.")
        is_norm = "norm" in key and key.endswith("weight")
        tree[twin] = np.ones_like(tree[key]) if is_norm and not is_gradient else np.zeros_like(tree[key])
    if is_gradient and layers == _VIT:
        before = tree[f"{layers}.{count - 1}.mlp.fc2.bias"]
        for name in ("self_attn.out_proj.bias", "mlp.fc2.bias"):
            tree[f"{layers}.{count}.{name}"] = before


def _wider(tree: dict, layers: str, width: int, more: int) -> None:
    """More units in every MLP, whose weights are zero."""
    for key, value in tree.items():
        if key.startswith(layers) and ".mlp" in key:
            sides = [(0, more if side == width else 0) for side in value.shape]
            tree[key] = np.pad(value, sides)


def _deeper_records(arrays: dict, config: dict) -> None:
    """What the additional layers give: their input again, and keys and values of zero."""
    out, infer = arrays["train_outputs"], arrays["infer"]
    llm, vit = config["llm"]["num_hidden_layers"], config["vit"]["num_hidden_layers"]
    out[f"layer{llm}"], out[f"vit_layer{vit}"] = out[f"layer{llm - 1}"], out[f"vit_layer{vit - 1}"]
    out[f"layer{llm}_attn"] = np.zeros_like(out[f"layer{llm - 1}_attn"])
    for name in ("ctx", "cfgtext", "cfgimg"):
        for part in "kv":
            infer[f"{name}_{part}{llm}"] = np.zeros_like(infer[f"{name}_{part}{llm - 1}"])


def _moved(ids: np.ndarray, old: int, new: int) -> np.ndarray:
    """Position ids in a table of another side."""
    return ids // old * new + ids % old


def _moved_rows(table: np.ndarray, old: int, new: int) -> np.ndarray:
    larger = np.zeros((new * new, table.shape[1]), table.dtype)
    larger[_moved(np.arange(old * old), old, new)] = table
    return larger


def _sinusoids(side: int, width: int) -> np.ndarray:
    """The fixed table in float64: sine and cosine of the column, then of the row."""
    frequency = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(side * side), side)
    angles = np.outer(column, frequency), np.outer(row, frequency)
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def _more_blocks(tensors: dict, count: int) -> None:
    """One more residual block a level of the VAE, whose last convolution is zero."""
    for key in list(tensors):
        for half, last in (("down", count - 1), ("up", count)):
            match = re.fullmatch(rf"(.*{half}\.\d+\.block\.){last}\.((?:norm|conv)\d\..*)", key)
            if match is None:
                continue
            # A level may begin with another width; a further block has the level's own throughout.
            value, width = tensors[key], tensors[f"{match[1]}{last}.norm2.weight"].shape[0]
            shape = (width, *value.shape[1:]) if value.ndim == 1 else (width, width, *value.shape[2:])
            tensors[f"{match[1]}{last + 1}.{match[2]}"] = np.zeros(shape, np.float32)


def _write(
    source: Path, target: Path, config: dict, tensors: dict, arrays: dict, more_blocks: bool = False
) -> None:
    target.mkdir(parents=True)
    (target / "config.json").write_text(json.dumps(config))
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, target / "bagel_x.safetensors")
    for path in source.glob("ae_*.safetensors"):
        vae = load_file(path)
        if more_blocks:
            _more_blocks(vae, config["ae"]["num_res_blocks"] - 1)
        save_file(vae, target / "ae_x.safetensors")
    for name, fields in arrays.items():
        np.savez(target / f"{name}.npz", **fields)
