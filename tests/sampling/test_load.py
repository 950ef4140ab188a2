"""What does not fit some weights is one line, before anything is drawn: tokenizer, sizes, images, contexts."""

import dataclasses
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from models.checkpoints.bagel import toy

from macro.inputs.tokenizer import Tokenizer
from macro.models.checkpoints import weights
from macro.models.variants import to_dict
from macro.sampling.compatibility import find_tokenizer, fitted, training_record
from macro.sampling.load import load, packing_of
from macro.utils.errors import UserError

CONFIG = dataclasses.replace(toy.CONFIG, llm=dataclasses.replace(toy.CONFIG.llm, vocab=Tokenizer.demo().vocab_size))
PACKING = {"buckets": ((24, 16, 2),), "reference_max_side": 56}
SAMPLING = {"num_timesteps": 2, "cfg_img_scale": 2.0}


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Writes weights of shapes alone (all zero), which `load` reads up to the drawing."""
    shapes = {name: np.zeros(shape, ml_dtypes.bfloat16) for name, shape in toy.convert.shapes(CONFIG).items()}

    def write(notes, **without):
        path = tmp_path / "model.safetensors"
        params = weights.unflatten_dict({k: v for k, v in shapes.items()}, sep="/")
        weights.save(path, params, CONFIG, notes, "bfloat16")
        return path

    return write


def notes(**changes):
    tokenizer = Tokenizer.demo()
    record = training_record(CONFIG, tokenizer, packing_of(CONFIG, PACKING))
    record = json.loads(json.dumps(record)) | changes
    return {"config": {"packing": PACKING, "sampling": SAMPLING, "data": {"tokenizer": ""}}, "trained_with": record}


def test_weights_without_a_tokenizer_are_refused_and_those_of_the_demo_are_not(save):
    config = {"sampling": SAMPLING, "data": {"tokenizer": ""}}
    path = save({"source": "BAGEL"})
    with pytest.raises(UserError, match=r"model.safetensors: has no tokenizer: .*tokenizer.json, and config.data.tok"):
        load(path, config)
    (path.parent / "bagel").mkdir()
    Tokenizer.demo().save(path.parent / "bagel" / "tokenizer.json")
    pipeline = load(path, config | {"model": {"dtype": "bfloat16"}})
    assert pipeline.config.dtype == "bfloat16" and not pipeline.packing.images.buckets
    assert find_tokenizer(path, "", {"data": {"tokenizer": ""}}, CONFIG).sha256 == Tokenizer.demo().sha256


def test_trained_weights_bring_their_packing_and_what_they_cannot_be_drawn_with_is_named(save):
    path = save(notes())
    assert load(path).packing.images.buckets == ((24, 16),)
    config = {"sampling": SAMPLING, "packing": {}, "data": {"tokenizer": ""}}
    assert load(path, config).packing.images == load(path).packing.images
    dropout = notes()["trained_with"]["cfg_dropout"]
    for changes, given, message in (
        ({}, {"packing": {"reference_max_side": 42}}, "images with reference_max_side, .*56.*, but config.pac"),
        ({}, {"model": {"llm": {"mlp": 25}}}, "has model.llm.mlp=24, but config.model asks for 25"),
        ({}, {"model": {"vision": {"side": 9}}}, "has model.vision.side=5, but config.model asks for 9"),
        ({}, {"sampling": SAMPLING | {"cfg_text_skale": 2}}, "cfg_text_skale"),
        ({"tokenizer": {"sha256": "x", "vocab_size": 9, "layout": [1, 2]}}, {}, "tokenizer: its vocab_size is 9"),
        ({"arrangement": "image_first"}, {"data": {"tokenizer": "", "arrangement": "in_sentence"}}, "set it to 'im"),
        ({"cfg_dropout": dropout | {"no_image": 0.0}}, {}, "compares the context 'no_image', which the"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            load(save(notes(**changes)), config | given)
        assert "\n" not in str(raised.value)
    fine = config | {"sampling": SAMPLING | {"cfg_img_scale": 1.0}}
    load(save(notes(cfg_dropout=dropout | {"no_image": 0.0})), fine)


def test_a_binding_that_weights_lack_is_zero_and_one_that_they_have_stays(save):
    asked = to_dict(CONFIG) | {"binding": True}
    bound = fitted(Path("x"), CONFIG, asked)
    assert bound.binding and bound.dtype == "float32"
    config = {"sampling": SAMPLING, "data": {}, "model": {"binding": True, "dtype": "bfloat16"}}
    composer = load(save({"config": {}}), config).params["composer"]
    assert composer["binding"].shape == (13, 16) and not np.any(composer["binding"])
    assert composer["mot"]["blocks"]["und"]["q"]["kernel"].dtype == "bfloat16"
    with pytest.raises(UserError, match="binding"):
        fitted(Path("x"), bound, to_dict(CONFIG))
