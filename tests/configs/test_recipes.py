"""The recipes at full size, by shapes alone, and their ":smoke" for real."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from macro.inputs.collate import collate
from macro.inputs.conditioning import CfgDropout
from macro.inputs.packing import PackingConfig, example_segments
from macro.inputs.tokenize_example import token_counts
from macro.inputs.tokenizer import Tokenizer
from macro.models.checkpoints import weights
from macro.objectives import joint
from macro.objectives.parts import model_config
from macro.parallel import multihost
from macro.parallel.mesh import make_mesh, parallel_config
from macro.sampling.options import read_options
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.train import main
from macro.training import data, lora, state
from macro.training.step import make_step
from macro.utils import tree
from macro.utils.config import load, run
from macro.utils.errors import UserError

FOLDER = Path(__file__).parents[2] / "configs"
RECIPES = ("bagel_7b", "macro_bagel_7b", "inset_bagel_7b", "music_7b")
# What the released checkpoint holds; its two position tables, 4,096 and 4,900 rows of 3,584, are computed here.
COMPOSER = 14_607_260_128 - (4096 + 4900) * 3584
VISION, VAE = 402_552_736, 83_819_683
BINDING = 13 * 3584
# (in, out) of the matrices of one expert's layer: q, o, k, v, gate, up, down.
MATRICES = ((3584, 3584), (3584, 3584), (3584, 512), (3584, 512), (3584, 18944), (3584, 18944), (18944, 3584))


def recipe(name, arg=""):
    return load(str(FOLDER / f"{name}.py") + (f":{arg}" if arg else ""))


def shapes_of(config):
    return state.shapes(joint, config)


@pytest.mark.parametrize("name", RECIPES)
def test_full_size_has_the_released_parameters(name):
    shapes = shapes_of(recipe(name))
    assert tree.count(shapes["vae"]) == VAE
    assert tree.count(shapes["composer"]) == COMPOSER + (BINDING if name == "music_7b" else 0)


def test_macro_trains_everything_but_the_encoders():
    config = recipe("macro_bagel_7b")
    trained, kept = tree.split(shapes_of(config), state.frozen(joint, config))
    assert tree.count(trained) == COMPOSER - VISION and tree.count(kept) == VISION + VAE


def test_music_trains_adapters_of_rank_64_on_both_experts():
    config = recipe("music_7b")
    shapes = state.shapes(lora.adapted(joint, config), config)
    assert tree.count(shapes[weights.ADAPTERS]) == 2 * 28 * 64 * sum(i + o for i, o in MATRICES) == 322_961_408


@pytest.mark.parametrize("name", RECIPES)
def test_a_full_size_step_has_a_gradient(name):
    """Traced, not compiled, on rows of the recipe's own capacities."""
    config = recipe(name)
    packing = data.packing_config(config, model_config(config))
    row = collate([], packing)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), row)
    objective = lora.adapted(joint, config)
    mesh = make_mesh(parallel_config(config))
    began, _ = state.placement(objective, config, mesh)
    after, metrics = jax.eval_shape(make_step(objective, config, mesh), began, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), began)
    assert {"plan", "draw", "loss", "grad_norm"} <= set(metrics)


ASPECTS = ((1, 1), (3, 4), (4, 3), (9, 16), (2, 1))


@pytest.mark.parametrize("name", ["macro_bagel_7b", "inset_bagel_7b"])
@pytest.mark.parametrize("images", [0, 2, 5, 8, 10])
def test_the_largest_samples_fit_a_row(name, images):
    config = recipe(name)
    packing = data.packing_config(config, model_config(config))
    for height, width in ASPECTS:
        size = (500 * height, 500 * width)
        black = np.broadcast_to(np.uint8(0), (*size, 3))
        spans = (Text("word " * 200), *(Image(black) for _ in range(images)), Target(black))
        rng = np.random.default_rng(0)
        pieces = example_segments(Sentence(spans), Tokenizer.demo(), _undropped(packing), rng)
        need = dict(zip(packing.kinds, token_counts(pieces, packing), strict=True))
        assert (token_counts(pieces, packing) <= packing.capacities).all(), (size, need)


def _undropped(packing: PackingConfig) -> PackingConfig:
    """Everything of a sample, as most have it."""
    return dataclasses.replace(packing, cfg_dropout=CfgDropout(no_text=0.0, no_image=0.0, null=0.0))


def test_rows_of_the_recipes_are_as_long_as_their_papers_say():
    tokens = {}
    for name in RECIPES[:3]:
        packing = recipe(name).packing
        tokens[name] = packing.text + packing.vision + packing.latent
    assert 32_768 <= tokens["bagel_7b"] <= 36_864 and 32_768 <= tokens["macro_bagel_7b"] <= 36_864
    assert abs(tokens["inset_bagel_7b"] - 30_000) < 300


def test_macro_mixes_tasks_and_buckets_as_published():
    mix = dict(recipe("macro_bagel_7b").data.mix)
    assert sum(mix.values()) == pytest.approx(1) and mix["text_to_image"] == pytest.approx(0.1)
    tasks = {}
    for folder, weight in mix.items():
        tasks.setdefault(folder.split("/")[0], []).append(weight)
    del tasks["text_to_image"]
    assert {task: np.round(np.divide(w, min(w)), 3).tolist() for task, w in tasks.items()} == {
        "customization": [1, 1, 1.5, 1.5], **dict.fromkeys(("illustration", "spatial", "temporal"), [1] * 4),
    }  # fmt: skip
    assert all(sum(weights) == pytest.approx(0.225) for weights in tasks.values())


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_say_how_images_are_drawn_and_what_a_wrong_argument_is(name):
    read_options(recipe(name).sampling)
    with pytest.raises(UserError, match=f"{name}.py:huge: the argument can only be smoke"):
        recipe(name, "huge")


@pytest.mark.parametrize("name", ["bagel_7b", "macro_bagel_7b", "inset_bagel_7b"])
def test_without_a_folder_the_mistake_is_named_before_weights_are_read(name, tmp_path, capsys):
    argv = ["train", f"--config={FOLDER / name}.py", f"--workdir={tmp_path}", "--config.data.tokenizer="]
    with pytest.raises(SystemExit) as exit_:
        run(main, argv, **multihost.HELPS)
    assert exit_.value.code == 2 and "config.data.dir: is empty" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_smoke_trains(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = recipe(name, "smoke")
    with config.unlocked():
        config.total_steps, config.data.num, config.data.workers = 3, 8, 0
        config.packing.window = 8
    assert main(config, str(tmp_path)) == 0
    assert (tmp_path / "model.safetensors").is_file()
