"""LoRA: starts as no change, merges and comes apart, trains what it should and nothing else, names mistakes."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict
from objectives.test_joint import CONFIG as MODEL_CONFIG
from objectives.test_joint import batch as joint_batch
from training.stand_in import Data, Objective, get_config

from macro.models.checkpoints import peft
from macro.models.checkpoints.lora import merge
from macro.models.composer import Composer, dummy_batch
from macro.models.variants import config_from_name
from macro.objectives import autoencoder, joint
from macro.parallel.mesh import ParallelConfig, make_mesh, shard_batch
from macro.training import loop, lora, optim
from macro.training.lora import LoRAConfig
from macro.training.state import averaged, create
from macro.training.step import make_step
from macro.utils import experiment, tree
from macro.utils.errors import UserError

TARGETS = ("(q|out)/kernel$",)
CONFIG = LoRAConfig(rank=3, alpha=6.0, target_modules=TARGETS)


@pytest.fixture
def params():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "blocks": {"q": {"kernel": normal(2, 6, 5), "bias": normal(2, 5)}, "norm": {"scale": normal(2, 6)}},
        "out": {"kernel": normal(6, 4), "bias": normal(4)},
        "conv": {"kernel": normal(3, 3, 6, 4)},
        "embed": normal(9, 6),
    }


@pytest.fixture
def trained(params):
    """Adapters as after some training: neither matrix is zero."""
    fresh = lora.init(jax.random.key(1), params, CONFIG)
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape), jnp.float32), fresh)


def test_adapters_have_the_shapes_of_their_kernels_and_begin_as_peft_does(params):
    adapters = tree.flatten(lora.init(jax.random.key(1), params, CONFIG))
    shapes = {path: leaf.shape for path, leaf in adapters.items()}
    assert shapes == {
        "blocks/q/kernel/a": (2, 6, 3),
        "blocks/q/kernel/b": (2, 3, 5),
        "out/kernel/a": (6, 3),
        "out/kernel/b": (3, 4),
    }
    assert all(leaf.dtype == jnp.float32 for leaf in adapters.values())
    for path, leaf in adapters.items():
        if path.endswith("/b"):
            assert not np.any(leaf)
        else:
            assert 0.7 * 6**-0.5 < np.abs(leaf).max() < 6**-0.5
    first, second = adapters["blocks/q/kernel/a"]
    assert not np.array_equal(first, second)


def test_another_target_leaves_the_adapters_of_the_others_alone(params):
    few = lora.init(jax.random.key(1), params, LoRAConfig(rank=3, alpha=6.0, target_modules=("out/kernel$",)))
    many = lora.init(jax.random.key(1), params, CONFIG)
    np.testing.assert_array_equal(few["out"]["kernel"]["a"], many["out"]["kernel"]["a"])


def test_dropout_takes_whole_features_of_each_layer_and_keeps_the_mean(params, trained):
    config = LoRAConfig(rank=3, alpha=6.0, dropout=0.25, target_modules=TARGETS)
    found = jax.vmap(lambda key: lora.scaled(trained, config, key))(jax.random.split(jax.random.key(4), 4000))
    a, before = found["blocks"]["q"]["kernel"]["a"], trained["blocks"]["q"]["kernel"]["a"]
    dropped = np.all(np.asarray(a) == 0, axis=-1)
    np.testing.assert_allclose(np.mean(dropped, axis=0), 0.25, atol=0.04)
    assert np.any(dropped[:, 0] != dropped[:, 1])
    np.testing.assert_allclose(a, np.where(dropped[..., None], 0.0, before / 0.75), rtol=1e-5)
    # Without a key nothing is dropped; alpha / rank is in B.
    whole = lora.scaled(trained, config)
    np.testing.assert_array_equal(whole["out"]["kernel"]["a"], trained["out"]["kernel"]["a"])
    np.testing.assert_array_equal(whole["out"]["kernel"]["b"], 2.0 * trained["out"]["kernel"]["b"])


# Mistakes in the config


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"preset": "musik"}, r"config.lora.preset='musik': choose one of music"),
        ({"ranks": 3}, "config.lora: unknown key 'ranks'; did you mean 'rank'"),
        ({"rank": -1}, "config.lora.rank=-1: must be at least 1"),
        ({"preset": "music", "rank": 0}, "config.lora.alpha is set, but config.lora.rank is 0"),
        ({"target_modules": TARGETS}, "config.lora.target_modules is set, but config.lora.rank is 0"),
        ({"rank": 2, "target_modules": TARGETS}, "config.lora.alpha=0.0: must be above 0"),
        ({"rank": 2, "alpha": 2.0}, "config.lora.target_modules: is empty"),
        ({"rank": 2, "alpha": 2.0, "target_modules": TARGETS, "dropout": 1.0}, "config.lora.dropout=1.0"),
        (
            {"rank": 2, "alpha": 2.0, "target_modules": "kernel"},
            "config.lora.target_modules='kernel': must be of type tuple",
        ),
        (
            {"rank": 2, "alpha": 2.0, "target_modules": ("q(",)},
            r"config.lora.target_modules: 'q\(' is no regular expression",
        ),
        (
            {"rank": 2, "alpha": 2.0, "target_modules": TARGETS, "modules_to_save": (3,)},
            "config.lora.modules_to_save: 3 is no string",
        ),
    ],
)
def test_mistakes_in_the_config_are_named(values, named):
    with pytest.raises(UserError, match=named):
        lora.lora_config(ConfigDict({"lora": values}))


@pytest.mark.parametrize(
    ("targets", "full", "named"),
    [
        (("q/kernl$",), (), r"config.lora.target_modules: 'q/kernl\$' matches nothing .* blocks/q/kernel, out/kernel$"),
        (TARGETS, ("norms/",), "config.lora.modules_to_save: 'norms/' matches nothing .* blocks/norm/scale"),
        (("blocks/q",), (), r"config.lora.target_modules: blocks/q/bias \(2, 5\) is no matrix kernel"),
        (("kernel",), (), r"config.lora.target_modules: conv/kernel \(3, 3, 6, 4\) is no matrix kernel"),
        (("embed",), (), r"config.lora.target_modules: embed \(9, 6\) is no matrix kernel"),
        (TARGETS, ("^out/",), "config.lora: out/kernel is in target_modules and in modules_to_save"),
    ],
)
def test_patterns_that_do_not_fit_the_parameters_are_named(params, targets, full, named):
    with pytest.raises(UserError, match=named):
        lora.chosen(params, LoRAConfig(rank=2, alpha=2.0, target_modules=targets, modules_to_save=full))


def test_off_by_default_and_where_a_config_has_no_such_section():
    assert lora.lora_config(experiment.defaults()) == lora.lora_config(ConfigDict()) == LoRAConfig()
    assert not LoRAConfig().on
    assert lora.adapted(Objective, experiment.defaults()) is Objective
    bare = {"line": {"kernel": 1}}
    assert lora.without_adapters(bare, ConfigDict()) is bare


def test_music_is_one_value_and_its_fields_can_be_changed():
    config = experiment.defaults()
    config.lora.preset = "music"
    settings = lora.lora_config(config.lock())
    assert (settings.rank, settings.alpha, settings.scale) == (64, 64.0, 1.0)
    config.lora.rank = 16
    assert (lora.lora_config(config).rank, lora.lora_config(config).target_modules) == (16, settings.target_modules)


@pytest.mark.parametrize("binding", [True, False])
def test_music_adapts_both_experts_and_trains_norms_embeddings_and_heads_in_full(binding):
    model = config_from_name("7B/1024", binding=binding)
    shapes = jax.eval_shape(Composer(model).init, jax.random.key(0), *dummy_batch(model))["params"]
    shapes, settings = {"composer": shapes}, LoRAConfig(**lora.PRESETS["music"])
    targets, full = lora.chosen(shapes, settings)
    matrices = ("q", "k", "v", "o", "gate", "up", "down")
    assert set(targets) == {f"composer/mot/blocks/{e}/{m}/kernel" for e in ("und", "gen") for m in matrices}
    left = set(tree.flatten(shapes)) - set(targets) - set(full)
    assert all(re.match(r"composer/planner/vision/|composer/mot/blocks/(und|gen)/[qkv]/bias", path) for path in left)
    assert ("composer/binding" in full) == binding
    adapters = jax.eval_shape(lambda key: lora.init(key, shapes, settings), jax.random.key(0))
    width, mlp, kv, layers = 3584, 18944, 512, 28
    per_expert = 2 * (width + width) + 2 * (width + kv) + 3 * (width + mlp)
    assert tree.count(adapters) == 2 * layers * 64 * per_expert


def test_adapters_of_music_go_through_the_files_of_peft(tmp_path):
    model = config_from_name("XXS/64")
    shapes = jax.eval_shape(Composer(model).init, jax.random.key(0), *dummy_batch(model))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), {"composer": shapes})
    settings = LoRAConfig(**lora.PRESETS["music"])
    adapters = jax.tree.map(lambda x: x + 0.1, lora.init(jax.random.key(1), params, settings))
    peft.save_peft(tmp_path, {"lora": adapters}, settings.rank, settings.alpha, settings.dropout)
    loaded, fields = peft.load_peft(tmp_path)
    again = LoRAConfig(**fields)
    assert lora.chosen(params, again)[0] == lora.chosen(params, settings)[0]
    both = merge(params, adapters, settings.scale), merge(params, loaded["lora"], again.scale)
    jax.tree.map(np.testing.assert_array_equal, *both)


# The model itself

EVERY = LoRAConfig(
    rank=2, alpha=3.0, target_modules=("^composer/.*kernel$",), modules_to_save=("norm/scale$", "planner/(embed|head)$")
)


@pytest.fixture(scope="module")
def model():
    """(config, objective with adapters beside every kernel, all parameters at random, a batch, its totals)."""
    config = ConfigDict(MODEL_CONFIG.to_dict() | {"seed": 0, "lora": dataclasses.asdict(EVERY)})
    objective = lora.adapted(joint, config)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: objective.init(jax.random.key(0), config))
    params = jax.tree.map(lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype), shapes)
    batch = jax.tree.map(jnp.asarray, joint_batch())
    return config, objective, params, batch, joint.totals(batch, config)


def loss_of(objective, config, batch, totals):
    return lambda params: objective.loss(params, batch, jax.random.key(5), config, totals)[0]


def test_loss_and_gradients_are_those_of_the_merged_kernels(model):
    config, objective, params, batch, totals = model
    trained, frozen = tree.split(params, objective.FROZEN)
    beside = loss_of(objective, config, batch, totals)
    plain = loss_of(joint, config, batch, totals)

    def merged(trained):
        params = tree.merge(trained, frozen)
        adapters = params.pop("lora")
        return plain(merge(params, adapters, EVERY.scale))

    loss, grads = jax.jit(jax.value_and_grad(lambda trained: beside(tree.merge(trained, frozen))))(trained)
    expected, expected_grads = jax.jit(jax.value_and_grad(merged))(trained)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    flat, wanted = tree.flatten(grads), tree.flatten(expected_grads)
    assert flat.keys() == wanted.keys() and any(path.startswith("lora/") for path in flat)
    for path, gradient in flat.items():
        scale = np.abs(wanted[path]).max()
        assert scale > 0 or not path.startswith("lora/"), path
        np.testing.assert_allclose(gradient, wanted[path], rtol=1e-3, atol=2e-5 * scale, err_msg=path)


def products(jaxpr, times=1):
    """(shape of the result, multiplications) of every dot_general, those of loops as often as they run."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            inner = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
            yield eqn.outvars[0].aval.shape, times * inner * math.prod(eqn.outvars[0].aval.shape)
        for part in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield from products(part, times * (eqn.params["length"] if eqn.primitive.name == "scan" else 1))


def backward(loss, trained, frozen):
    return list(products(jax.make_jaxpr(jax.grad(lambda x: loss(tree.merge(x, frozen))))(trained).jaxpr))


def test_no_gradient_of_a_frozen_kernels_shape_is_computed(model):
    config, objective, params, batch, totals = model
    trained, frozen = tree.split(params, objective.FROZEN)
    kernels = {path: x.shape for path, x in tree.flatten(frozen["composer"]["mot"]).items() if path.endswith("kernel")}
    shapes = {shape for *_, i, o in kernels.values() for shape in ((i, o), (o, i))}
    shapes -= {leaf.shape[::turn] for leaf in jax.tree.leaves(trained) for turn in (1, -1)}
    assert len(shapes) >= 4
    found = backward(loss_of(objective, config, batch, totals), trained, frozen)
    assert not shapes & {shape for shape, _ in found}

    base = {name: part for name, part in params.items() if name != "lora"}
    whole = backward(loss_of(joint, config, batch, totals), *tree.split(base, joint.FROZEN))
    assert shapes <= {shape for shape, _ in whole} | {shape[::-1] for shape, _ in whole}
    # What is saved are the gradients of those kernels, and what comes on top are the adapters' three products a pair.
    tokens = {"und": batch["text"]["ids"].size + batch["vision"]["position"].size}
    tokens["gen"] = batch["latent"]["source"].size
    saved = sum(tokens[path.split("/")[1]] * math.prod(shape) for path, shape in kernels.items())
    most = max(tokens.values())
    added = 3 * most * sum(math.prod(x.shape) for x in jax.tree.leaves(trained["lora"]))
    spent, before = (sum(count for _, count in each) for each in (found, whole))
    assert spent <= before - saved + added


def test_the_frozen_base_lies_in_the_type_that_it_is_multiplied_in(model):
    config, _, params, _, _ = model
    config = ConfigDict(config.to_dict())
    config.model.dtype = "bfloat16"
    objective = lora.adapted(joint, config)
    trained, frozen = tree.split(jax.eval_shape(lambda: objective.init(jax.random.key(0), config)), objective.FROZEN)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((trained, frozen["vae"])))
    kernels = {path: x.dtype for path, x in tree.flatten(frozen["composer"]).items() if path.endswith("kernel")}
    assert {path for path, dtype in kernels.items() if dtype != jnp.bfloat16} == {
        f"diffusion_head/time/fc{n}/kernel" for n in (1, 2)
    }
    # The forward pass casts so anyway, and casting twice is casting once.
    once = joint.cast_frozen(params, config)
    jax.tree.map(np.testing.assert_array_equal, joint.cast_frozen(once, config), once)


# Training, on the stand-in: eye is frozen, line is a kernel [5, 1] and a bias.

ON = {
    "rank": 2,
    "alpha": 4.0,
    "dropout": 0.2,
    "target_modules": ("^line/kernel$",),
    "modules_to_save": ("^line/bias$",),
}


def with_lora(**changes):
    return get_config(lora=ON, **changes)


def fresh_and_step(config):
    objective, mesh = lora.adapted(Objective, config), make_mesh(ParallelConfig())
    return lambda: create(objective, config, mesh), make_step(objective, config, mesh)


def laid(batch):
    return shard_batch(batch, range(2), 2, make_mesh(ParallelConfig()))


def test_only_adapters_and_extras_have_gradients_average_and_optimizer_state():
    config = with_lora()
    fresh, step = fresh_and_step(config)
    before = jax.tree.map(np.array, fresh())
    state, data = fresh(), Data()
    for _ in range(3):
        state, _ = step(state, laid(next(data)))
    trained = {"lora/line/kernel/a", "lora/line/kernel/b", "line/bias"}
    moved = {
        path
        for path, leaf in tree.flatten(state.params).items()
        if not np.array_equal(leaf, tree.flatten(before.params)[path])
    }
    assert moved == trained
    assert set(tree.flatten(state.ema)) == set(tree.flatten(state.opt_state[1][0].mu)) == trained
    base = {name: part for name, part in before.params.items() if name != "lora"}
    # LoRA changes nothing about where a run starts.
    jax.tree.map(np.testing.assert_array_equal, base, Objective.init(jax.random.key(config.seed), config))


def test_the_first_gradient_reaches_b_alone():
    """A's gradient carries B, which starts at zero."""
    config = with_lora()
    objective = lora.adapted(Objective, config)
    params = objective.init(jax.random.key(0), config)
    batch = jax.tree.map(jnp.asarray, next(Data()))
    totals = Objective.totals(batch, config)
    grads = jax.grad(lambda p: objective.loss(p, batch, jax.random.key(1), config, totals)[0])(params)
    pair = grads["lora"]["line"]["kernel"]
    assert not np.any(pair["a"]) and np.all(pair["b"])
    plain, _ = Objective.loss(params, batch, jax.random.key(1), config, totals)
    assert objective.loss(params, batch, jax.random.key(1), config, totals)[0] == plain


def test_dropout_follows_from_seed_and_step():
    config = with_lora()
    fresh, step = fresh_and_step(config)
    batches = [laid(next(Data())) for _ in range(2)]

    def loss(seed_step):
        state = fresh()
        params = tree.merge(state.params, {"lora": {"line": {"kernel": {"b": jnp.ones((2, 1))}}}})
        return float(step(state.replace(params=params, step=jnp.int32(seed_step)), batches[0])[1]["loss"])

    assert loss(4) == loss(4) != loss(5)


def test_it_learns_through_the_loop(tmp_path):
    """A kernel of one column has rank 1: LoRA reaches what full training reaches."""
    changes = {"lr": 0.3, "warmup_steps": 10, "weight_decay": 0.0, "grad_clip_norm": 100.0}
    config = with_lora(total_steps=200, save_every_steps=0, log_every_steps=50, optim=changes)
    config.lora.dropout = 0.0
    state = loop.run(Objective, config, Data(), str(tmp_path))
    whole = lora.without_adapters(averaged(state), config)
    assert set(whole) == {"eye", "line"}
    np.testing.assert_allclose(whole["line"]["kernel"][:, 0], np.arange(1.0, 6.0), atol=0.3)


def test_killed_and_started_again_ends_the_same(tmp_path):
    class Killed(BaseException):
        pass

    class Dies(Data):
        def __next__(self):
            if len(self.served) == 6 * 6:
                raise Killed
            return super().__next__()

    unbroken = loop.run(Objective, with_lora(), Data(), str(tmp_path / "whole"))
    with pytest.raises(Killed):
        loop.run(Objective, with_lora(), Dies(), str(tmp_path / "killed"))
    data = Data()
    again = loop.run(Objective, with_lora(), data, str(tmp_path / "killed"))
    assert len(data.served) == 6 * 8  # it went on at step 4 of 12
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(unbroken))


def test_a_checkpoint_holds_what_is_trained_and_knows_its_base(tmp_path):
    config = with_lora()
    loop.run(Objective, config, Data(), str(tmp_path))
    held = ocp.PyTreeCheckpointer().restore(tmp_path / "checkpoints" / "12" / "state")
    trained = {"line/bias", "lora/line/kernel/a", "lora/line/kernel/b"}
    assert tree.flatten(held["params"]).keys() == tree.flatten(held["ema"]).keys() == trained

    class Another(Objective):
        @staticmethod
        def init(key, config):
            return jax.tree.map(lambda x: x + 1, Objective.init(key, config))

    config.total_steps = 14
    with pytest.raises(UserError, match=r"12: eye/kernel of the base model is not what this run began with.*init_from"):
        loop.run(Another, config, Data(), str(tmp_path))
    assert loop.run(Objective, config, Data(), str(tmp_path)).step == 14


def test_lora_does_not_go_on_from_a_run_without(tmp_path):
    loop.run(Objective, get_config(total_steps=2), Data(), str(tmp_path))
    with pytest.raises(UserError, match="the config asks for"):
        loop.run(Objective, with_lora(), Data(), str(tmp_path))


def test_an_objective_without_such_layers_is_refused():
    with pytest.raises(UserError, match="config.lora: only the objective joint"):
        lora.adapted(autoencoder, with_lora())


def test_frozen_parameters_are_no_targets():
    config = get_config(lora=ON | {"target_modules": ("^eye/kernel$",)})
    with pytest.raises(UserError, match=r"'\^eye/kernel\$' matches nothing that this objective trains"):
        lora.adapted(Objective, config)


def test_muon_leaves_adapters_to_adam():
    config = get_config(lora=ON, optim={"lr": 0.05, "warmup_steps": 2, "name": "muon"})
    fresh, step = fresh_and_step(config)
    state, metrics = step(fresh(), laid(next(Data())))
    assert np.isfinite(float(metrics["loss"]))
    assert all(leaf is None for leaf in tree.flatten(optim.orthogonal(state.ema)).values())
