"""The command line on a handful of made-up sentences: what it writes, and what it says to mistakes."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from macro.models.checkpoints import weights
from macro.models.checkpoints.lora import merge
from macro.objectives import joint
from macro.parallel import multihost
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.train import main
from macro.training import data, evaluators, lora
from macro.utils import images as image_io
from macro.utils import tree
from macro.utils.config import load, run

CONFIG = str(Path(__file__).parents[1] / "configs" / "tiny.py") + ":smoke"


def sentences(count=8):
    rng = np.random.default_rng(0)

    def pixels(side):
        return rng.integers(0, 256, (side, side, 3), np.uint8)

    for i in range(count):
        grid = np.zeros((8, 8), np.int8)
        grid[2:5, 1:4], grid[4:7, 4:7] = 1, 2
        first, second = (Image(pixels(32), subject=n, number=n) for n in (1, 2))
        spans = Text("A "), first, Text(" left of "), second, Plan("Left, right.", grid), Target(pixels(64))
        yield Sentence(spans, "compose", i)


@pytest.fixture
def small(monkeypatch):
    """The smallest run: made-up data read in this process."""
    source = list(sentences())
    monkeypatch.setattr(data, "stored", lambda config: source)
    config = load(CONFIG)
    config.update({"total_steps": 3, "save_every_steps": 2, "log_every_steps": 1, "batch_size": 1})
    config.data.workers = 0
    config.packing.update({"text": 200, "vision": 16, "latent": 64, "samples": 2, "window": 8})
    config.packing.buckets = ((64, 64, 2),)
    return config


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_trains_and_writes_a_model_that_knows_its_config(small, tmp_path, capsys):
    assert main(small, str(tmp_path)) == 0
    assert {"config.json", "metrics.jsonl", "checkpoints", "model.safetensors"} == {
        path.name for path in tmp_path.iterdir()
    }
    last = records(tmp_path)[-1]
    assert {"plan", "draw", "plan/compose", "draw/compose", "fill/text", "fill/vision", "fill/latent"} <= set(last)
    assert len(last["params_sha256"]) == 64
    params, _, notes = weights.load(tmp_path / "model.safetensors")
    assert set(params) == {"composer", "vae"}
    assert notes["steps"] == 3
    assert notes["examples_seen"] == last["examples_seen"]
    assert notes["config"] == json.loads((tmp_path / "config.json").read_text())
    # The same command once more has nothing to do, and says so.
    capsys.readouterr()
    assert main(small, str(tmp_path)) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.slow
def test_with_lora_the_model_has_the_adapters_in_it_and_a_file_holds_them_alone(small, tmp_path):
    small.lora.preset = "music"
    small.lora.rank = 2
    small.lora.modules_to_save = ("^composer/binding$",)
    assert main(small, str(tmp_path)) == 0
    whole, model, notes = weights.load(tmp_path / "model.safetensors")
    assert set(whole) == {"composer", "vae"}
    held, _, held_notes = weights.load(tmp_path / "lora.safetensors")
    assert tree.flatten(held["composer"]).keys() == {"binding"}
    assert (held_notes["lora"]["rank"], held_notes["lora"]["alpha"], held_notes["base"]) == (2, 64.0, {})
    assert held_notes["parameters"] == tree.count(held) < notes["parameters"] == tree.count(whole)
    # Taken out again, what is left is what the run began with, but for the part trained in full.
    began = jax.jit(lambda key: joint.init(key, small))(jax.random.key(small.seed))
    left = merge(whole, held["lora"], -lora.lora_config(ConfigDict(held_notes)).scale)
    for path, leaf in tree.flatten(began).items():
        same = np.allclose(tree.flatten(left)[path], leaf, atol=1e-5)
        assert same == (path != "composer/binding"), path
    moved = whole["composer"]["mot"]["blocks"]["und"]["q"]["kernel"]
    assert not np.array_equal(moved, began["composer"]["mot"]["blocks"]["und"]["q"]["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampling", "tiles"),
    [
        ({"num_timesteps": 2, "use_planner": True}, 6),
        ({"num_timesteps": 2}, 3),
        ({"policy": "bagel", "num_timesteps": 2}, 3),
    ],
)
def test_sample_grids_show_what_the_mode_has(small, tmp_path, sampling, tiles):
    small.update({"total_steps": 2, "eval_every_steps": 1})
    with small.unlocked():
        small.sampling = sampling
    main(small, str(tmp_path))
    assert sorted(path.name for path in (tmp_path / "sample_grids").iterdir()) == ["000001.png", "000002.png"]
    sheet = image_io.load(tmp_path / "sample_grids" / "000002.png")
    assert sheet.shape[1] // evaluators.SIDE == tiles


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("objective=jiont", "config.objective='jiont'; did you mean 'joint'?"),
        ("data.name=scene", "config.data.name='scene': there is scenes"),
        ("model.variant=XXL/64", "model.variant='XXL/64': expected"),
        ("optim.schedule=linear", "config.optim.schedule='linear': choose one of cosine, constant"),
        ("packing.buckets=((60,64,4),)", "config.packing.buckets: 60x64 is no multiple of 16"),
        ("batch_size=0", "config.batch_size=0 does not divide"),
        ("lora.preset=musik", "config.lora.preset='musik': choose one of music"),
        ("lora.rank=-1", "config.lora.rank=-1: must be at least 1"),
    ],
)
def test_mistakes_are_named_before_anything_is_made(override, line, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as left:
        run(main, ["train", f"--config={CONFIG}", f"--workdir={tmp_path}/w", f"--config.{override}"], **multihost.HELPS)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")
    assert list((tmp_path / "w").iterdir()) == []
    assert not (tmp_path / "cache" / "macro" / "data").exists()
