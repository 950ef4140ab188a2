"""A new model from a small Qwen2.5 and a small SigLIP with random weights, as Hugging Face would lay them out."""

import json

import ml_dtypes
import numpy as np
import pytest
from models.checkpoints.bagel import toy
from safetensors.numpy import save_file

from macro.models.checkpoints import weights
from macro.models.checkpoints.bagel.upcycle import start_from
from macro.utils.errors import UserError

QWEN = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 40, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
}  # fmt: skip
SIGLIP = {
    "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 4,
}  # fmt: skip


@pytest.fixture
def parts(tmp_path):
    """(folder of Qwen, folder of SigLIP, the autoencoder's file), and the tensors of the first two."""
    rng = np.random.default_rng(0)

    def random(*shape):
        return rng.normal(size=shape).astype(ml_dtypes.bfloat16)

    def linear(name, outputs, inputs, bias=True):
        return {f"{name}.weight": random(outputs, inputs)} | ({f"{name}.bias": random(outputs)} if bias else {})

    qwen = {"model.embed_tokens.weight": random(40, 16), "model.norm.weight": random(16)}
    for i in range(2):
        layer = f"model.layers.{i}"
        qwen |= {f"{layer}.{n}.weight": random(16) for n in ("input_layernorm", "post_attention_layernorm")}
        for name, outputs in (("q", 16), ("k", 8), ("v", 8)):
            qwen |= linear(f"{layer}.self_attn.{name}_proj", outputs, 16)
        qwen |= linear(f"{layer}.self_attn.o_proj", 16, 16, bias=False)
        for name, shape in (("gate", (24, 16)), ("up", (24, 16)), ("down", (16, 24))):
            qwen |= linear(f"{layer}.mlp.{name}_proj", *shape, bias=False)
    sight = {
        "vision_model.embeddings.patch_embedding.weight": random(12, 3, 4, 4),
        "vision_model.embeddings.patch_embedding.bias": random(12),
        "vision_model.embeddings.position_embedding.weight": random(25, 12),
        "text_model.something.weight": random(3),
    }
    norms = ["post_layernorm"]
    for i in range(3):
        layer = f"vision_model.encoder.layers.{i}"
        norms += [f"encoder.layers.{i}.layer_norm{n}" for n in (1, 2)]
        for name in ("q", "k", "v", "out"):
            sight |= linear(f"{layer}.self_attn.{name}_proj", 12, 12)
        sight |= linear(f"{layer}.mlp.fc1", 20, 12) | linear(f"{layer}.mlp.fc2", 12, 20)
    for norm in norms:
        sight |= {f"vision_model.{norm}.{kind}": random(12) for kind in ("weight", "bias")}
    for name, tensors, values in (("qwen", qwen, QWEN), ("siglip", sight, {"vision_config": SIGLIP})):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps(values))
    save_file(toy.tensors()[1], tmp_path / "ae.safetensors")
    return (tmp_path / "qwen", tmp_path / "siglip", tmp_path / "ae.safetensors"), qwen, sight


def started(parts, out):
    params, config, _ = weights.load(start_from(*parts[0], out, 6, 0, {}))
    return params["composer"], config


def test_sizes(parts, tmp_path):
    _, config = started(parts, tmp_path / "out")
    assert (config.llm.layers, config.vision.layers, config.vision.side, config.vision.patch) == (2, 2, 5, 4)
    assert config.latent_side == 6 and config.vae == toy.CONFIG.vae and config.binding


def test_experts_are_twins_and_layers_keep_their_order(parts, tmp_path):
    composer, _ = started(parts, tmp_path / "out")
    und, gen = (composer["mot"]["blocks"][name] for name in ("und", "gen"))
    for name in ("q", "gate", "down"):
        np.testing.assert_array_equal(und[name]["kernel"], gen[name]["kernel"])
    np.testing.assert_array_equal(und["k"]["kernel"][1], parts[1]["model.layers.1.self_attn.k_proj.weight"].T)
    assert (und["q_norm"]["scale"] == 1).all() and (gen["k_norm"]["scale"] == 1).all()
    np.testing.assert_array_equal(composer["planner"]["head"], composer["planner"]["embed"])  # tied


def test_patches_are_read_in_our_order(parts, tmp_path):
    composer, _ = started(parts, tmp_path / "out")
    convolution = parts[2]["vision_model.embeddings.patch_embedding.weight"].astype(np.float32)
    patch = np.random.default_rng(1).normal(size=(4, 4, 3)).astype(np.float32)  # row, column, channel
    expected = np.einsum("ochw,hwc->o", convolution, patch)
    ours = patch.reshape(-1) @ composer["planner"]["vision"]["patch_embedding"]["kernel"]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_what_is_new(parts, tmp_path):
    composer, _ = started(parts, tmp_path / "out")
    head = composer["diffusion_head"]
    assert not head["latent_out"]["kernel"].any() and not composer["binding"].any()
    assert 0.5 < np.std(head["latent_in"]["kernel"]) * 4 < 2  # 16 inputs
    again, _ = started(parts, tmp_path / "again")
    np.testing.assert_array_equal(again["diffusion_head"]["latent_in"]["kernel"], head["latent_in"]["kernel"])


def test_what_is_missing_is_named(parts, tmp_path):
    (qwen, siglip, vae), tensors, _ = parts
    save_file({k: v for k, v in tensors.items() if "layers.1.mlp.up" not in k}, qwen / "model.safetensors")
    with pytest.raises(UserError, match=r"no tensor model.layers.1.mlp.up_proj.weight"):
        start_from(qwen, siglip, vae, tmp_path / "out", 6, 0, {})
    save_file(tensors | {"model.norm.weight": np.zeros(3, np.float32)}, qwen / "model.safetensors")
    with pytest.raises(UserError, match=r"language_model.model.norm.weight \(3,\), not \(16,\)"):
        start_from(qwen, siglip, vae, tmp_path / "out", 6, 0, {})
    assert not (tmp_path / "out").exists()
