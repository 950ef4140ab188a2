"""Whole folders in and out: bytes, types, layouts on disk, memory, and what is wrong with a checkpoint."""

import json
import tracemalloc
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.checkpoints.bagel import toy
from safetensors.numpy import load_file, save_file

from macro.models.checkpoints import weights
from macro.models.checkpoints.bagel.checkpoint import LATENT_TABLE, open_folder
from macro.models.checkpoints.bagel.convert import check, export_bagel, fixed_tables, import_bagel
from macro.models.composer import Composer, dummy_batch
from macro.models.variants import VAEConfig
from macro.nn.layers import position_embedding
from macro.utils.errors import UserError


@pytest.fixture(scope="module")
def tensors():
    return toy.tensors()


@pytest.fixture
def bagel(tmp_path, tensors):
    return toy.write(tmp_path / "bagel", *tensors)


def same_bytes(one, other):
    a, b = load_file(one), load_file(other)
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape, key
        assert a[key].tobytes() == b[key].tobytes(), key


def test_in_and_out_again_gives_the_same_bytes(bagel, tmp_path):
    (bagel / "tokenizer.json").write_text("{}")
    import_bagel(open_folder(bagel), tmp_path / "ours", {})
    export_bagel(tmp_path / "ours", tmp_path / "back")
    for name in ("ema.safetensors", "ae.safetensors"):
        same_bytes(bagel / name, tmp_path / "back" / name)
    for name in ("llm_config.json", "vit_config.json", "config.json", "tokenizer.json"):
        assert (bagel / name).read_bytes() == (tmp_path / "back" / name).read_bytes()
    assert not (tmp_path / "back" / "macro_extra.safetensors").exists()


def test_sizes_are_read_off_json_and_tensors(bagel, tmp_path):
    assert open_folder(bagel).config == toy.CONFIG
    import_bagel(open_folder(bagel), tmp_path / "ours", {"note": 1})
    params, config, notes = weights.load(tmp_path / "ours" / "model.safetensors")
    assert config == toy.CONFIG and notes == {"note": 1}
    shapes = jax.eval_shape(Composer(config).init, jax.random.key(0), *dummy_batch(config))["params"]
    assert jax.tree.map(np.shape, params["composer"]) == jax.tree.map(np.shape, shapes)


def test_linear_layers_lie_the_other_way_round(bagel, tmp_path, tensors):
    import_bagel(open_folder(bagel), tmp_path / "ours", {})
    params, _, _ = weights.load(tmp_path / "ours" / "model.safetensors")
    theirs = tensors[0]["language_model.model.layers.2.mlp_moe_gen.down_proj.weight"]
    np.testing.assert_array_equal(params["composer"]["mot"]["blocks"]["gen"]["down"]["kernel"][2], theirs.T)
    theirs = tensors[1]["encoder.down.0.block.1.conv2.weight"]
    kernel = params["vae"]["encoder"]["down_0"]["block_1"]["conv2"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 2], theirs[:, :, 0, 2].T)


def test_shards_with_an_index(bagel, tmp_path, tensors):
    ema, names = tensors[0], sorted(tensors[0])
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: ema[key] for key in keys}, bagel / file)
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (bagel / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = import_bagel(open_folder(bagel), tmp_path / "whole", {})[0].read_bytes()
    (bagel / "ema.safetensors").unlink()
    assert import_bagel(open_folder(bagel), tmp_path / "shards", {})[0].read_bytes() == whole


def test_binding_travels_in_a_file_of_its_own(tmp_path):
    config = replace(toy.CONFIG, binding=True)
    ema, ae = toy.tensors(config)
    binding = np.random.default_rng(1).normal(size=(13, 16)).astype(np.float32)
    bagel = toy.write(tmp_path / "bagel", ema, ae, config)
    save_file({"composer/binding": binding}, bagel / "macro_extra.safetensors")
    assert open_folder(bagel).config == config
    import_bagel(open_folder(bagel), tmp_path / "ours", {})
    params, _, _ = weights.load(tmp_path / "ours" / "model.safetensors")
    np.testing.assert_array_equal(params["composer"]["binding"], binding)
    export_bagel(tmp_path / "ours", tmp_path / "back")
    same_bytes(bagel / "macro_extra.safetensors", tmp_path / "back" / "macro_extra.safetensors")
    same_bytes(bagel / "ema.safetensors", tmp_path / "back" / "ema.safetensors")


KERNEL = "composer/mot/blocks/gen/q/kernel"


def test_adapters_travel_with_the_binding(bagel, tmp_path):
    import_bagel(open_folder(bagel), tmp_path / "ours", {})
    width, layers, rank = toy.CONFIG.llm.width, toy.CONFIG.llm.layers, 2
    rng = np.random.default_rng(2)
    halves = {"a": rng.normal(size=(layers, width, rank)), "b": rng.normal(size=(layers, rank, width))}
    tree = {name: half.astype(np.float32) for name, half in halves.items()}
    for part in reversed(["lora", *KERNEL.split("/")]):
        tree = {part: tree}
    notes = {"lora": {"rank": rank, "alpha": 4.0}}
    weights.save(tmp_path / "ours" / "lora.safetensors", tree, toy.CONFIG, notes)
    export_bagel(tmp_path / "ours", tmp_path / "back")
    same_bytes(bagel / "ema.safetensors", tmp_path / "back" / "ema.safetensors")
    model, lora = import_bagel(open_folder(tmp_path / "back"), tmp_path / "again", {})
    same_bytes(model, tmp_path / "ours" / "model.safetensors")
    same_bytes(lora, tmp_path / "ours" / "lora.safetensors")
    assert weights.load(lora)[2] == notes


@pytest.mark.parametrize("shape", [(3, 16, 2), (2, 2, 16), (2, 16), (3, 2, 15)])
def test_adapters_that_fit_no_kernel_are_named(bagel, tmp_path, shape):
    path = f"lora/{KERNEL}/b"
    save_file({path: np.zeros(shape, np.float32)}, bagel / "macro_extra.safetensors")
    with pytest.raises(UserError, match="gen/q/kernel/b .* fits no kernel"):
        import_bagel(open_folder(bagel), tmp_path / "ours", {})


def test_a_model_of_our_own_goes_out_with_computed_tables(bagel, tmp_path):
    import_bagel(open_folder(bagel), tmp_path / "ours", {})
    (tmp_path / "moved.safetensors").write_bytes((tmp_path / "ours" / "model.safetensors").read_bytes())
    export_bagel(tmp_path / "moved.safetensors", tmp_path / "out")
    table = load_file(tmp_path / "out" / "ema.safetensors")[LATENT_TABLE]
    expected = np.asarray(position_embedding(jnp.arange(36)[None], 6, 16)[0]).astype(table.dtype)
    np.testing.assert_array_equal(table, expected)
    assert open_folder(tmp_path / "out").config == toy.CONFIG


def test_memory_stays_near_the_largest_tensor(tmp_path):
    config = replace(toy.CONFIG, llm=replace(toy.CONFIG.llm, vocab=1 << 20))
    bagel = toy.write(tmp_path / "bagel", *toy.tensors(config), config)
    largest = (1 << 20) * 16 * 2
    for run in (
        lambda: import_bagel(open_folder(bagel), tmp_path / "ours", {}),
        lambda: export_bagel(tmp_path / "ours", tmp_path / "back"),
    ):
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.2 * largest


def spoil(ema, ae, how):
    if how == "missing":
        del ema["llm2vae.bias"]
    elif how == "unknown":
        ema["language_model.model.extra"] = np.zeros(3, np.float32)
    elif how == "shape":
        ae["decoder.conv_in.bias"] = np.zeros(3, np.float32)
    elif how == "table":
        ema[LATENT_TABLE] = ema[LATENT_TABLE][:25]
    elif how == "rows":
        ema[LATENT_TABLE] = ema[LATENT_TABLE][:24]
    elif how == "vision":
        ema = {k: v for k, v in ema.items() if not k.startswith("vit_model.vision_model.encoder")}
    return ema, ae


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "1 missing: llm2vae.bias"),
        ("unknown", "1 unknown: language_model.model.extra"),
        ("shape", r"1 of another shape: decoder.conv_in.bias \(3,\), not \(64,\)"),
        ("table", "max_latent_size of 5, but config.json's bagel.max_latent_size is 6"),
        ("rows", "24 rows of latent_pos_embed.pos_embed are no square"),
        ("vision", "checkpoint has 0 vision layers"),
    ],
)
def test_what_does_not_fit_is_listed_before_anything_is_written(tmp_path, tensors, how, message):
    bagel = toy.write(tmp_path / "bagel", *spoil(dict(tensors[0]), dict(tensors[1]), how))
    with pytest.raises(UserError, match=message):
        import_bagel(open_folder(bagel), tmp_path / "ours", {})
    assert not (tmp_path / "ours").exists()


def test_damaged_files_are_named(bagel):
    whole = (bagel / "ae.safetensors").read_bytes()
    (bagel / "ae.safetensors").write_bytes(whole[:-10])
    with pytest.raises(UserError, match="ae.safetensors: cut short"):
        open_folder(bagel)
    (bagel / "ae.safetensors").write_bytes(b"PK\x03\x04" + whole)
    with pytest.raises(UserError, match="ae.safetensors: a pickle"):
        open_folder(bagel)
    (bagel / "ae.safetensors").write_bytes(whole)
    (bagel / "llm_config.json").write_text('{"hidden_size": 16}')
    with pytest.raises(UserError, match="llm_config.json: the field 'num_attention_heads'"):
        open_folder(bagel)
    (bagel / "vit_config.json").unlink()
    with pytest.raises(UserError, match="vit_config.json: cannot be read"):
        open_folder(bagel)


def test_the_latent_side_that_the_user_counts_on(bagel):
    with pytest.raises(UserError, match="--max_latent_size is 64"):
        open_folder(bagel, max_latent_size=64)
    assert open_folder(bagel, max_latent_size=6).config.latent_side == 6


def test_tables_may_be_absent(tmp_path, tensors):
    ema = {key: value for key, value in tensors[0].items() if key not in fixed_tables(toy.CONFIG)}
    bagel = toy.write(tmp_path / "bagel", ema, tensors[1])
    check(open_folder(bagel))


def test_an_autoencoder_of_other_groups_stays_here(bagel, tmp_path):
    config = replace(toy.CONFIG, vae=VAEConfig(channels=32, multipliers=(1, 2), res_blocks=2, z=4, groups=8))
    import_bagel(open_folder(bagel), tmp_path / "ours", {})
    params, _, _ = weights.load(tmp_path / "ours" / "model.safetensors")
    weights.save(tmp_path / "other.safetensors", params, config, {})
    with pytest.raises(UserError, match="8 groups"):
        export_bagel(tmp_path / "other.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
