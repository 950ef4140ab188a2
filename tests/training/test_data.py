"""From config to packing, and the mistakes in between."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from macro.inputs.dataset_builder import prepare
from macro.objectives.parts import model_config
from macro.parallel.mesh import make_mesh, parallel_config
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.training import data
from macro.utils.config import load
from macro.utils.errors import UserError
from macro.utils.images import save


@pytest.fixture
def config():
    config = load(str(Path(__file__).parents[2] / "configs" / "tiny.py"))
    config.unlock()
    return config


def test_sizes_follow_from_the_model(config):
    model = model_config(config)
    packing = data.packing_config(config, model)
    assert (packing.patch, packing.vision_side) == (model.vision.patch, model.vision.side)
    assert (packing.latent_stride, packing.latent_side) == (16, 4)
    assert (packing.text, packing.cfg_dropout.no_text) == (config.packing.text, 0.1)
    assert packing.tasks == ("compose",)


def test_data_and_its_engines_options_are_told_apart(config):
    own, options = data.data_config(config)
    assert (own.name, own.num) == ("scenes", 512)
    assert (options.size, options.reference_size) == (64, 32)


@pytest.mark.parametrize(
    ("section", "key", "line"),
    [
        ("data", "refrence_size", "config.data: unknown key 'refrence_size'; did you mean 'reference_size'"),
        ("packing", "txt", "config.packing: unknown key 'txt'; did you mean 'text'"),
    ],
)
def test_a_misspelt_key_is_named(config, section, key, line):
    config[section][key] = 3
    with pytest.raises(UserError, match=line.replace("(", r"\(")):
        data.data_config(config)
        data.packing_config(config, model_config(config))


def test_a_vocabulary_that_does_not_fit_is_named(config):
    config.model.llm = {"vocab": 100}
    with pytest.raises(UserError, match="room for 100 ids.*config.model.llm.vocab"):
        data.tokenizer_of(config, model_config(config))


def sample(folder, idx):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("in", "out"):
        save(folder / f"{idx}_{name}.png", np.full((64, 64, 3), idx, np.uint8))
    record = {"idx": idx, "prompt": "<image 1> again.", "input_images": [f"{idx}_in.png"]}
    (folder / f"{idx}.json").write_text(json.dumps(record | {"output_image": f"{idx}_out.png"}))


def test_files_are_mixed_and_packed(config, tmp_path):
    for folder, numbers in (("a", range(4)), ("b", range(4, 6))):
        for idx in numbers:
            sample(tmp_path / folder, idx)
    mix = [["a", 1], ["b", 2]]
    config.data = {"name": "files", "dir": str(tmp_path), "mix": mix, "workers": 0}
    source = data.stored(config)
    assert sorted(source[i].idx for i in range(len(source))) == [0, 1, 2, 3, *[4] * 4, *[5] * 4]
    model = model_config(config)
    tokenizer, packing = data.tokenizer_of(config, model), data.packing_config(config, model)
    batches = data.batches(config, source, tokenizer, packing, make_mesh(parallel_config(config)))
    batch = next(batches)
    shown = [batch["pixels"]["64x64"][row][:2] for row in range(config.batch_size)]
    assert {int(image.max()) for images in shown for image in images} <= set(range(6))
    assert batch["latent"]["loss"].any()


def made(seed, start, count, options):
    """Edits as an engine would make them: a source, an instruction, a target."""
    image = np.full((64, 64, 3), options["shade"], np.uint8)
    spans = Image(image, role="source"), Text("again"), Plan("x", np.zeros((8, 8), np.int8)), Target(image)
    return [Sentence(spans, options["task"], start + n) for n in range(count)]


def test_built_data_sets_of_any_engine_are_mixed_and_packed(config, tmp_path):
    for name, num, task, shade in (("music", 4, "compose", 10), ("edit", 2, "edit", 20)):
        prepare(name, str(tmp_path), 0, num, made, {"task": task, "shade": shade})
    config.data = {"name": "records", "dir": str(tmp_path), "mix": (("music", 1), ("edit", 2.0)), "workers": 0}
    config.tasks = ("compose", "edit")
    source = data.stored(config)
    assert [source[i].task for i in range(len(source))] == ["compose"] * 4 + ["edit"] * 8
    model = model_config(config)
    tokenizer, packing = data.tokenizer_of(config, model), data.packing_config(config, model)
    batch = next(data.batches(config, source, tokenizer, packing, make_mesh(parallel_config(config))))
    assert {0, 10, 20} >= {int(shade) for shade in np.unique(batch["pixels"]["64x64"])} > {0}
    assert set(np.unique(batch["latent"]["task_id"])) == {0, 1}


def test_mistakes_about_built_data_sets_are_named(config, tmp_path):
    config.data = {"name": "records", "dir": str(tmp_path)}
    with pytest.raises(UserError, match="holds no data set; name the folder of one"):
        data.stored(config)
    config.data = {"name": "records", "dir": str(tmp_path), "size": 64}
    with pytest.raises(UserError, match="config.data: unknown key 'size'"):
        data.stored(config)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "config.data.dir: is empty; name the folder"),
        ({"dir": "nowhere"}, "nowhere/?: no .json files are there"),
        ({"mix": (("a", 0.0),)}, "config.data.mix: ('a', 0.0) must have a weight above 0"),
        ({"mix": (("a",),)}, "config.data.mix: ('a',) must be a folder and a weight"),
        ({"mix": ("ab", 1.0)}, "config.data.mix: 'ab' must be a folder and a weight"),
        ({"mix": (("a", "1"),)}, "config.data.mix: ('a', '1') must be a folder and a weight"),
        ({"mix": ()}, "config.data.mix: is empty"),
        ({"size": 64}, "config.data: unknown key 'size'"),
    ],
)
def test_mistakes_about_files_are_named(config, values, line):
    config.data = {"name": "files", **values}
    with pytest.raises(UserError, match=re.escape(line).replace("/\\?", "/?")):
        data.stored(config)


def test_buckets_beyond_the_position_table_are_named(config):
    config.packing.buckets = ((64, 80, 1),)
    with pytest.raises(UserError, match="config.packing.buckets: 64x80, but the model's position table"):
        data.packing_config(config, model_config(config))
