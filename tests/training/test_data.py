"""From config to packing, and the mistakes in between."""

from pathlib import Path

import pytest

from macro.objectives.parts import model_config
from macro.training import data
from macro.utils.config import load
from macro.utils.errors import UserError


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
    assert (packing.text, packing.no_text) == (config.packing.text, 0.1)
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
