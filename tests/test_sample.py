"""The command line on random weights: what it writes, and what it says to bad input."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from sampling.toy import random_like

import macro
from macro.models.checkpoints import weights
from macro.objectives import joint, parts
from macro.sample import HELPS, main
from macro.sentence.plan import Plan
from macro.utils.config import load as load_config
from macro.utils.config import run
from macro.utils.errors import UserError
from macro.utils.images import load, save

CONFIG = Path(__file__).parents[1] / "configs" / "tiny.py"
BAGEL = Path(__file__).parents[1] / "configs" / "bagel_sample.py"
FILES = {"plan.json", "plan.png", "image.png", "report.html"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, two images, a text file and some plans."""
    folder = tmp_path_factory.mktemp("sample")
    config = load_config(str(CONFIG))
    config.sampling.num_timesteps = 2
    params = random_like(jax.eval_shape(lambda key: joint.init(key, config), jax.random.key(0)))
    notes = {"config": json.loads(config.to_json_best_effort())}
    weights.save(folder / "model.safetensors", params, parts.model_config(config), notes)
    for name in "ab":
        save(folder / f"{name}.png", np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    (folder / "text.png").write_text("not an image")
    grid = np.zeros((8, 8), int)
    (folder / "wide.json").write_text(json.dumps({"cot": "x", "grid": grid[:, :7].tolist()}))
    (folder / "three.json").write_text(json.dumps({"cot": "x", "grid": (grid + 3).tolist()}))
    (folder / "broken.json").write_text("{")
    return folder


def _run(folder, workdir, **changes) -> int:
    given = {"instruction": "<image 1> by <image 2>", "images": f"{folder}/a.png,{folder}/b.png"}
    given |= {"weights": f"{folder}/model.safetensors", "config.sampling.num_timesteps": 2} | changes
    file = given.pop("config", CONFIG)
    values = {key: value for key, value in given.items() if value is not None}
    argv = [f"--config={file}", f"--workdir={workdir}", *(f"--{k}={v}" for k, v in values.items())]
    with pytest.raises(SystemExit) as left:
        run(main, ["sample", *argv], **HELPS)
    return left.value.code


def test_writes_plan_image_and_report(folder, tmp_path):
    assert _run(folder, tmp_path / "first") == 0
    assert {path.name for path in (tmp_path / "first").iterdir()} == FILES
    plan = Plan.from_json((tmp_path / "first" / "plan.json").read_text(), subjects=2)
    assert load(tmp_path / "first" / "image.png").shape == (64, 64, 3)
    assert "a.png" in (tmp_path / "first" / "report.html").read_text()

    assert _run(folder, tmp_path / "again", plan=tmp_path / "first" / "plan.json") == 0
    again = Plan.from_json((tmp_path / "again" / "plan.json").read_text())
    assert again == plan
    assert (tmp_path / "again" / "image.png").read_bytes() == (tmp_path / "first" / "image.png").read_bytes()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"images": "{folder}/none.png,{folder}/b.png"}, "none.png"),
        ({"images": "{folder}/text.png,{folder}/b.png"}, "text.png"),
        ({"images": None}, "<image 1>"),
        ({"instruction": "<image 7> and <image 1>"}, "<image 7>"),
        ({"instruction": " "}, "empty"),
        ({"instruction": None}, "--instruction"),
        ({"instruction": None, "images": None}, "demo.instruction"),
        ({"images": ",".join(["{folder}/a.png"] * 13)}, "12"),
        ({"plan": "{folder}/wide.json"}, "wide.json"),
        ({"plan": "{folder}/three.json"}, "three.json"),
        ({"plan": "{folder}/broken.json"}, "broken.json"),
        ({"plan": "{folder}/none.json"}, "none.json"),
        ({"candidates": 0}, "candidates"),
        ({"source": "{folder}/none.png"}, "none.png"),
        ({"source": "{folder}/text.png"}, "text.png"),
        ({"source": "{folder}/a.png", "instruction": None, "images": None}, "--source without --instruction"),
        ({"source": "{folder}/a.png", "images": ",".join(["{folder}/a.png"] * 12)}, "13 images, but at most 12"),
        ({"source": "{folder}/a.png", "images": None}, "<image 2>"),
        ({"weights": "{folder}/none.safetensors"}, "none.safetensors"),
        ({"weights": None}, "--weights"),
        ({"config.sampling.step": 3}, "sampling.step"),
    ],
)
def test_mistakes_are_one_clear_line(folder, tmp_path, capsys, changes, said):
    filled = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in changes.items()}
    assert _run(folder, tmp_path, **filled) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and said in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_source_is_edited(folder, tmp_path):
    # Any of twelve subjects may be in it, and a plan may say so.
    (tmp_path / "plan.json").write_text(json.dumps({"cot": "x", "grid": (np.zeros((8, 8), int) + 3).tolist()}))
    given = {"source": f"{folder}/b.png", "images": f"{folder}/a.png", "plan": tmp_path / "plan.json"}
    assert _run(folder, tmp_path / "out", instruction="put <image 2> on the <image 1> car", **given) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert load(tmp_path / "out" / "image.png").shape == (64, 64, 3)
    page = (tmp_path / "out" / "report.html").read_text()
    heading = re.sub(r'<span class="word".*?</span>', "[image]", re.search(r"<h1.*?</h1>", page, re.S)[0])
    assert "[image]put [image] on the &lt;image 1&gt; car" in heading and page.count("to edit") == 1


def _run_bagel(folder, workdir, flags=None, **changes) -> int:
    """As BAGEL draws, two steps of it."""
    given = {f"config.sampling.{key}": value for key, value in changes.items()}
    steps = {"config.sampling.num_timesteps": 2, "config.sampling.max_think_token_n": 6}
    return _run(folder, workdir, config=f"{BAGEL}:edit", **steps | given | (flags or {}))


@pytest.mark.slow
def test_bagels_config_writes_the_same_files(folder, tmp_path):
    assert _run_bagel(folder, tmp_path, think=True, image_shapes="32,48", cfg_interval="(0.4, 1.0)") == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert load(tmp_path / "image.png").shape == (32, 48, 3)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["grid"] is None and plan["cot"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"cfg_renorm_type": "local"}, "sampling.cfg_renorm_type"),
        ({"cfg_interval": "(0.9, 0.1)"}, "sampling.cfg_interval"),
        ({"num_timesteps": 0}, "sampling.num_timesteps"),
        ({"cfg_text_skale": 2.0}, "cfg_text_scale"),
        ({"image_shapes": "(1000, 64)"}, "1000x64"),
        ({"policy": "begal"}, "sampling.policy"),
        ({"mode": "bagel"}, "sampling.policy"),
    ],
)
def test_mistakes_in_bagels_options_are_one_clear_line(folder, tmp_path, capsys, changes, said):
    assert _run_bagel(folder, tmp_path, **changes) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and said in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_questions_are_answered_in_text(folder, tmp_path, capsys):
    given = {"instruction": None, "images": f"{folder}/a.png", "question": "what is <image 1> || and where"}
    assert _run_bagel(folder, tmp_path, flags=given) == 0
    turns = json.loads((tmp_path / "chat.json").read_text())
    assert [turn["question"] for turn in turns] == ["what is <image 1>", "and where"]
    said = capsys.readouterr().out
    assert all(turn["text"] in said for turn in turns) and {path.name for path in tmp_path.iterdir()} == {"chat.json"}


@pytest.mark.parametrize(
    ("flags", "said"), [({"plan": "x.json"}, "--plan with --question"), ({"question": "a || "}, "empty question")]
)
def test_mistakes_in_questions_are_one_clear_line(folder, tmp_path, capsys, flags, said):
    assert _run_bagel(folder, tmp_path, flags={"instruction": None, "question": "what"} | flags) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and said in line


def test_an_unwritable_workdir_is_said_first(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert _run(folder, tmp_path / "file" / "runs") == 2
    assert "--workdir" in capsys.readouterr().err


def test_load_finds_the_config_inside_the_weights(folder):
    pipeline = macro.load(folder / "model.safetensors")
    assert pipeline.options.num_timesteps == 2 and pipeline.packing.reference_max_side == 32
    result = pipeline.compose("<image 1>", [np.zeros((20, 20, 3), np.uint8)], plan=Plan("x"), num_timesteps=1)
    assert result.pixels.shape == (64, 64, 3)


def test_weights_without_a_composer_or_a_config_are_refused(folder, tmp_path):
    params, model, _ = weights.load(folder / "model.safetensors")
    weights.save(tmp_path / "vae.safetensors", {"vae": params["vae"]}, model, {})
    with pytest.raises(UserError, match="no composer"):
        macro.load(tmp_path / "vae.safetensors")
    weights.save(tmp_path / "bare.safetensors", params, model, {})
    with pytest.raises(UserError, match="config"):
        macro.load(tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match="nothing_here"):
        macro.load("nothing_here")
