"""Adapters as PEFT folders: names, transformed matrices, round trips, and folders that are something else."""

import json

import jax
import numpy as np
import pytest
from models.checkpoints.bagel import toy
from safetensors.numpy import load_file, save_file

from macro.convert import main as convert
from macro.models.checkpoints import lora, peft, weights
from macro.models.checkpoints.lora import merge_file
from macro.models.checkpoints.peft import load_peft, save_peft
from macro.models.composer import Composer
from macro.utils import tree
from macro.utils.errors import UserError

RANK = 2
SHAPES = {  # path -> (layers, in, out)
    "composer/mot/blocks/und/q/kernel": (3, 8, 6),
    "composer/mot/blocks/gen/q/kernel": (3, 8, 6),
    "composer/mot/blocks/gen/down/kernel": (3, 10, 8),
    "composer/planner/vision/layers/out/kernel": (2, 4, 4),
    "composer/planner/connector/fc1/kernel": (None, 4, 8),
}
MODULES = {  # path -> BAGEL's module
    "composer/mot/blocks/und/q/kernel": "language_model.model.layers.{}.self_attn.q_proj",
    "composer/mot/blocks/gen/q/kernel": "language_model.model.layers.{}.self_attn.q_proj_moe_gen",
    "composer/mot/blocks/gen/down/kernel": "language_model.model.layers.{}.mlp_moe_gen.down_proj",
    "composer/planner/vision/layers/out/kernel": "vit_model.vision_model.encoder.layers.{}.self_attn.out_proj",
    "composer/planner/connector/fc1/kernel": "connector.fc1",
}


@pytest.fixture
def adapters():
    rng = np.random.default_rng(0)
    flat = {}
    for path, (layers, inputs, outputs) in SHAPES.items():
        stack = () if layers is None else (layers,)
        flat[f"{path}/a"] = rng.normal(size=(*stack, inputs, RANK)).astype(np.float32)
        flat[f"{path}/b"] = rng.normal(size=(*stack, RANK, outputs)).astype(np.float32)
    return tree.unflatten(flat)


@pytest.fixture
def folder(tmp_path, adapters):
    save_peft(tmp_path / "adapter", {"lora": adapters}, RANK, 5.0, 0.25)
    return tmp_path / "adapter"


def change_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_every_layer_has_its_pair_under_the_name_of_bagels_module(folder, adapters):
    tensors, flat = load_file(folder / "adapter_model.safetensors"), tree.flatten(adapters)
    names = set()
    for path, (layers, inputs, outputs) in SHAPES.items():
        for layer in range(layers or 1):
            name = MODULES[path].format(layer)
            names.add(name)
            a, b = (tensors[f"base_model.model.{name}.lora_{half}.weight"] for half in "AB")
            assert (a.shape, b.shape) == ((RANK, inputs), (outputs, RANK))
            # torch computes x A^T B^T; ours is x a b.
            ours = [flat[f"{path}/{half}"] for half in "ab"]
            ours = ours if layers is None else [x[layer] for x in ours]
            np.testing.assert_array_equal(a.T, ours[0])
            np.testing.assert_array_equal(b.T, ours[1])
    assert len(tensors) == 2 * len(names)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == names
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == ("LORA", 2, 5.0, 0.25)
    assert config["base_model_name_or_path"] == peft.BAGEL


def test_round_trip(folder, adapters):
    loaded, fields = load_peft(folder)
    loaded = loaded["lora"]
    assert tree.flatten(loaded).keys() == tree.flatten(adapters).keys()
    for path, leaf in tree.flatten(loaded).items():
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, tree.flatten(adapters)[path])
    targets = tuple(f"^{path}$" for path in sorted(SHAPES))
    assert fields == {"rank": RANK, "alpha": 5.0, "dropout": 0.25, "target_modules": targets, "modules_to_save": ()}


def test_layers_are_ordered_by_number_not_by_name(tmp_path):
    """With more than ten layers `layers.10` stands before `layers.2` in the file."""
    rng = np.random.default_rng(1)
    pair = {"a": rng.normal(size=(12, 4, 1)), "b": rng.normal(size=(12, 1, 4))}
    adapters = tree.unflatten({f"composer/mot/blocks/gen/v/kernel/{half}": x for half, x in pair.items()})
    save_peft(tmp_path, {"lora": adapters}, 1, 1.0)
    loaded = tree.flatten(load_peft(tmp_path)[0]["lora"])
    np.testing.assert_array_equal(loaded["composer/mot/blocks/gen/v/kernel/a"], pair["a"].astype(np.float32))


def test_a_config_as_peft_writes_it_is_read(folder):
    """The keys of peft 0.19 that are not among ours, at what they are without any variant."""
    change_config(
        folder, alora_invocation_tokens=None, alpha_pattern={}, arrow_config=None, auto_mapping=None, corda_config=None,
        ensure_weight_tying=False, eva_config=None, exclude_modules=None, layer_replication=None, layers_pattern=None,
        layers_to_transform=None, loftq_config={}, lora_bias=False, lora_ga_config=None, megatron_config=None,
        megatron_core="megatron.core", modules_to_save=None, peft_version="0.19.1", qalora_group_size=16,
        rank_pattern={}, revision=None, target_parameters=None, trainable_token_indices=None, use_bdlora=None,
        use_qalora=False, lora_alpha=64, target_modules="all-linear",
    )  # fmt: skip
    assert load_peft(folder)[1]["alpha"] == 64.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', but only 'LORA'"),
        ({"use_dora": True, "use_rslora": True}, "use_rslora is True.*; use_dora is True, but only plain LoRA"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is {'q_proj': 4}"),
        ({"some_later_variant": 3}, "some_later_variant is 3"),
        ({"bias": "all"}, "bias is 'all', but only 'none'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"r": 0}, "r, the rank, is 0"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"r": 3}, r"q_proj.lora_A.weight: has shape \(2, 8\), but the rank is 3"),
    ],
)
def test_other_kinds_of_adapters_are_refused(folder, changes, named):
    change_config(folder, **changes)
    with pytest.raises(UserError, match=named):
        load_peft(folder)


Q = "base_model.model.language_model.model.layers.{}.self_attn.q_proj.lora_{}.weight"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop(Q.format(1, "B")), r"layers.1.self_attn.q_proj: has lora_A alone"),
        (lambda t: [t.pop(Q.format(1, half)) for half in "AB"], r"layers.1.self_attn.q_proj: is missing"),
        (lambda t: t.update({Q.format(2, "A"): np.zeros((2, 9), np.float32)}), r"layers.2.*shapes \(\(2, 9\), \(6"),
        (lambda t: t.update({Q.format(2, "B"): np.zeros((6, 5), np.float32)}), r"lora_B.weight: has shape \(6, 5\)"),
        (lambda t: t.update({Q.format(0, "A").replace("q_proj", "w_proj"): t[Q.format(0, "A")]}), "w_proj.*no such"),
        (lambda t: t.update({"base_model.model.language_model.lm_head.lora_A.weight": t[Q.format(0, "A")]}), "lm_head"),
        (lambda t: t.update({Q.format(0, "magnitude_vector"): t[Q.format(0, "A")]}), "magnitude_vector.*: not <m"),
        (lambda t: t.clear(), "holds no adapters"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(folder, change, named):
    change_tensors(folder, change)
    with pytest.raises(UserError, match=named):
        load_peft(folder)


def test_many_mistakes_are_counted(folder):
    change_tensors(folder, lambda t: t.update({f"x{i}": np.zeros(1, np.float32) for i in range(20)}))
    with pytest.raises(UserError, match="x0: not .*; and 12 more$"):
        load_peft(folder)


def test_missing_files_and_pickles(folder):
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-3])
    with pytest.raises(UserError, match="cut short"):
        load_peft(folder)
    weights.unlink()
    with pytest.raises(UserError, match="adapter_model.safetensors: is missing"):
        load_peft(folder)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="is a pickle, which can run any code"):
        load_peft(folder)
    config.write_text("{")
    with pytest.raises(UserError, match="adapter_config.json: is no JSON"):
        load_peft(folder)
    config.write_text("[]")
    with pytest.raises(UserError, match="holds no keys"):
        load_peft(folder)
    config.unlink()
    with pytest.raises(UserError, match="adapter_config.json: is missing"):
        load_peft(folder)


@pytest.mark.parametrize(
    ("path", "rank", "named"),
    [
        ("composer/planner/head/kernel", RANK, "is no linear layer of BAGEL's"),
        ("vae/encoder/mid/attn_1/q/kernel", RANK, "is no linear layer of BAGEL's"),
        ("composer/planner/connector/fc2/kernel", 4, "a .4, 2., b .2, 8., but the rank said is 4"),
    ],
)
def test_what_peft_has_no_name_for_is_not_written(tmp_path, path, rank, named):
    pair = {f"{path}/a": np.zeros((4, RANK)), f"{path}/b": np.zeros((RANK, 8))}
    with pytest.raises(UserError, match=named):
        save_peft(tmp_path / "adapter", {"lora": tree.unflatten(pair)}, rank, 1.0)
    assert not (tmp_path / "adapter").exists()


IDS = np.array([[3, 17, 0, 8, 25]])


def logits_of(params):
    """What our composer says to `IDS`."""
    n = IDS.shape[1]
    zeros, order = np.zeros((1, n), np.int32), np.arange(n, dtype=np.int32)[None]
    text = {
        "ids": IDS.astype(np.int32),
        "segment_ids": zeros,
        "token_index": order,
        "block_id": zeros,
        "mask_mode": zeros,
        "position_ids": order,
    }

    @jax.jit
    def run(params, text):
        variables = {"params": params}
        hidden = Composer(toy.CONFIG).apply(variables, {"text": text}, method=Composer.prefill)[0]
        return Composer(toy.CONFIG).apply(variables, hidden, method=Composer.logits)

    return np.asarray(run(params["composer"], text))


def test_adapters_of_the_real_peft_come_in_and_go_out(tmp_path, capsys):
    """A torch BAGEL with PEFT's adapters and a head trained in full says what ours says, and the other way round."""
    torch = pytest.importorskip("torch")
    real = pytest.importorskip("peft")
    from models.checkpoints.torch_llm import Bagel

    ema, ae = toy.tensors()
    ema = {name: (0.3 * value.astype(np.float32)).astype(value.dtype) for name, value in ema.items()}
    convert(str(toy.write(tmp_path / "bagel", ema, ae)), str(tmp_path / "ours"), from_="bagel")
    weights_file = str(tmp_path / "ours" / "model.safetensors")
    base, *_ = weights.load(weights_file)
    plain = Bagel(toy.CONFIG.llm, ema)
    ids = torch.from_numpy(IDS)
    before = plain(ids).detach().numpy()
    np.testing.assert_allclose(logits_of(base), before, rtol=1e-3, atol=1e-3)

    settings = real.LoraConfig(
        r=RANK, lora_alpha=6, lora_dropout=0.1, target_modules=["q_proj", "o_proj", "down_proj"],
        modules_to_save=["lm_head", "input_layernorm"],
    )  # fmt: skip
    wrapped = real.get_peft_model(plain, settings).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    after = wrapped(ids).detach().numpy()
    assert np.abs(after - before).max() > 0.1
    wrapped.save_pretrained(tmp_path / "theirs")

    file = str(tmp_path / "lora.safetensors")
    convert(str(tmp_path / "theirs"), file, from_="peft", base=weights_file)
    np.testing.assert_allclose(logits_of(merge_file(base, file)), after, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(logits_of(merge_file(base, tmp_path / "theirs")), after, rtol=1e-3, atol=1e-3)

    convert(file, str(tmp_path / "again"), to="peft")
    assert "adapter_model.safetensors" in capsys.readouterr().out
    again = real.PeftModel.from_pretrained(Bagel(toy.CONFIG.llm, ema), tmp_path / "again")
    np.testing.assert_allclose(again(ids).detach().numpy(), after, rtol=1e-3, atol=1e-3)

    # Adapters that do not fit get one line that says where.
    adapters, fields = load_peft(tmp_path / "theirs")
    q = adapters["lora"]["composer"]["mot"]["blocks"]["und"]["q"]["kernel"]
    q["a"] = q["a"][:, :-1]
    with pytest.raises(UserError, match=r"und/q/kernel do not fit: kernel \(3, 16, 16\), a \(3, 15, 2\)"):
        lora.save(tmp_path / "bad.safetensors", adapters, fields, weights_file)
    lora.save(tmp_path / "bad.safetensors", adapters, fields)
    with pytest.raises(UserError, match=r"bad.safetensors: the adapters of .*und/q/kernel do not fit"):
        merge_file(base, tmp_path / "bad.safetensors")
    del adapters["lora"]["composer"]["mot"]["blocks"]["und"]["q"]
    adapters["composer"]["planner"]["head"] = np.zeros((4, 4), np.float32)
    lora.save(tmp_path / "bad.safetensors", adapters, fields)
    with pytest.raises(UserError, match=r"holds composer/planner/head \(4, 4\), but the model has it \(40, 16\)"):
        merge_file(base, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="holds no adapters"):
        merge_file(base, weights_file)


def test_what_bagel_has_no_module_for_lies_beside(tmp_path, adapters):
    binding = np.ones((13, 8), np.float32)
    save_peft(tmp_path, {"lora": adapters, "composer": {"binding": binding}}, RANK, 5.0)
    loaded, fields = load_peft(tmp_path)
    np.testing.assert_array_equal(loaded["composer"]["binding"], binding)
    assert fields["modules_to_save"] == ("^composer/binding$",)
