"""A folder in which one number of one weight was changed does not pass."""

import shutil

import numpy as np
import pytest
from parity.checks import CHECKS
from parity.golden import Golden
from safetensors.numpy import load_file, save_file

# A tensor (its key's end), and a check that looks at what it does.
CASES = [
    ("language_model.model.layers.0.self_attn.q_proj.weight", "contexts.image_baseline_from_text_alone"),
    ("language_model.model.layers.0.self_attn.k_norm.weight", "contexts.image_baseline_from_text_alone"),
    ("language_model.model.layers.0.mlp.down_proj.weight", "training.every_layer"),
    ("language_model.model.layers.0.mlp_moe_gen.gate_proj.weight", "images.text_to_image"),
    ("language_model.model.norm_moe_gen.weight", "images.text_to_image"),
    ("lm_head.weight", "training.logits_and_cross_entropy"),
    ("time_embedder.mlp.2.weight", "training.embeddings"),
    ("llm2vae.bias", "training.velocity"),
    ("latent_pos_embed.pos_embed", "tables.positions"),
    ("encoder.layers.0.mlp.fc1.weight", "vision.every_layer"),
    ("connector.fc2.weight", "vision.connector"),
    ("encoder.mid.attn_1.q.weight", "vae.moments_sample_and_reconstruction"),
    ("decoder.conv_out.bias", "vae.moments_sample_and_reconstruction"),
]


def _tampered(golden: Golden, folder, end: str) -> Golden:
    """A copy of the folder in which the middle number of that tensor is off by a tenth of the tensor's scale."""
    shutil.copytree(golden.folder, folder, copy_function=shutil.copyfile)
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        key = next((key for key in tensors if key.endswith(end)), None)
        if key is not None:
            value = tensors[key].copy()
            value.flat[value.size // 2] += 0.1 * np.abs(value).max()
            save_file(tensors | {key: value}, path)
            return Golden(folder, partial=golden.partial)
    return pytest.skip(f"the small copy has no {end}")


@pytest.mark.parametrize("end, check", CASES, ids=[end for end, _ in CASES])
def test_one_changed_weight_is_found(golden, tmp_path, end, check):
    tampered = _tampered(golden, tmp_path / "bagel", end)
    with pytest.raises(AssertionError):
        CHECKS[check](tampered)


def test_an_unchanged_copy_passes(golden, tmp_path):
    shutil.copytree(golden.folder, tmp_path / "bagel", copy_function=shutil.copyfile)
    copy = Golden(tmp_path / "bagel", partial=golden.partial)
    for check in sorted({check for _, check in CASES}):
        if golden.has_vae or not check.startswith("vae"):
            CHECKS[check](copy)


def test_an_unknown_form_is_refused(golden, tmp_path):
    """A model that computes something else must not be compared as if it did not."""
    shutil.copytree(golden.folder, tmp_path / "bagel", copy_function=shutil.copyfile)
    config = (tmp_path / "bagel" / "config.json").read_text()
    changed = config.replace('"interpolate_pos": false', '"interpolate_pos": true')
    (tmp_path / "bagel" / "config.json").write_text(changed)
    with pytest.raises(AssertionError, match="interpolate_pos"):
        _ = Golden(tmp_path / "bagel").model
