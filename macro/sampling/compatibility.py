"""The settings that a model was trained with, stored with its weights and checked against those for sampling.

    notes["trained_with"] = {
        "images": ...        ImageSpec.to_dict()        "dtype": "bfloat16"        "reference_vae": true
        "arrangement": ...   see PackingConfig          "tokenizer": {"sha256", "vocab_size", "layout": [first, last]}
        "cfg_dropout": ...   hence the contexts that the model has seen
    }

Older files lack it; what can be checked without it is. Read next: `macro/sampling/load.py`.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from macro.inputs.conditioning import CONTEXTS, CfgDropout
from macro.inputs.packing import PackingConfig
from macro.inputs.tokenizer import Tokenizer
from macro.models import variants
from macro.models.variants import ModelConfig
from macro.sentence.prompt import AS_GIVEN
from macro.sentence.spans import MAX_REFERENCES, Image, Sentence, Target, Text
from macro.utils.errors import UserError

# A context that is rarer than this in training counts as unknown to the model.
LEAST_PROBABILITY = 0.01


def training_record(model: ModelConfig, tokenizer: Tokenizer, packing: PackingConfig) -> dict:
    """`notes["trained_with"]` for the weights that training writes; JSON-able."""
    return {
        "images": packing.images.to_dict(),
        "reference_vae": packing.reference_vae,
        "arrangement": packing.arrangement,
        "cfg_dropout": dataclasses.asdict(packing.cfg_dropout),
        "dtype": model.dtype,
        "tokenizer": _tokenizer_record(tokenizer),
    }


def _tokenizer_record(tokenizer: Tokenizer) -> dict:
    layout = [tokenizer.layout_start, tokenizer.cells[-1]]
    return {"sha256": tokenizer.sha256, "vocab_size": tokenizer.vocab_size, "layout": layout}


def check_record(
    path: Path, record: Mapping, tokenizer: Tokenizer, packing: PackingConfig, contexts: Sequence[str]
) -> None:
    """Checks the settings that a model was trained with against those for sampling.

    Args:
        record: from `training_record`. contexts: those that guidance uses.

    Raises:
        UserError: one line with the first difference, what was found and what is required.
    """
    check_tokenizer(path, record, tokenizer)
    _check_images(path, record["images"], packing.images.to_dict())
    if packing.reference_vae != record["reference_vae"]:
        raise UserError(
            f"{path}: was trained with reference_vae={record['reference_vae']}, but config.packing.reference_vae is "
            f"{packing.reference_vae}; leave that key out"
        )
    arrangement = record["arrangement"]
    if AS_GIVEN not in (arrangement, packing.arrangement) and arrangement != packing.arrangement:
        raise UserError(
            f"{path}: was trained with arrangement {arrangement!r}, but config.data.arrangement is "
            f"{packing.arrangement!r}; set it to {arrangement!r}"
        )
    check_contexts(path, CfgDropout(**record["cfg_dropout"]), packing.reference_vae, contexts)


def check_tokenizer(path: Path, record: Mapping, tokenizer: Tokenizer) -> None:
    """Raises UserError if the weights were trained with another tokenizer."""
    found, due = _tokenizer_record(tokenizer), record["tokenizer"]
    for name in ("vocab_size", "layout", "sha256"):
        if found[name] != due[name]:
            raise UserError(
                f"{path}: was trained with another tokenizer: its {name} is {due[name]}, but that of "
                f"config.data.tokenizer is {found[name]}; name the tokenizer.json that it was trained with"
            )


def _check_images(path: Path, due: Mapping, found: Mapping) -> None:
    due, found = (json.loads(json.dumps(each)) for each in (due, found))  # turns tuples into lists
    for key, value in found.items():
        if value != due[key]:
            raise UserError(
                f"{path}: was trained on images with {_key(key)}={due[key]}, but config.packing makes it {value}; "
                "leave that key of config.packing out, or set it as in training"
            )


def _key(name: str) -> str:
    return {"vit": "reference_max_side, reference_min_side and patch", "vae": "VAE sides"}.get(name, name)


def check_contexts(path: Path, dropout: CfgDropout, reference_vae: bool, contexts: Sequence[str]) -> None:
    """Raises UserError if guidance uses a context that under 1% of training samples show, whatever their images."""
    likely = [dropout.probabilities(prompt(count), reference_vae) for count in range(1, MAX_REFERENCES + 1)]
    for context in contexts:
        if max(each[context] for each in likely) < LEAST_PROBABILITY:
            shares = {name: getattr(dropout, name) for name in CONTEXTS[1:]}
            raise UserError(
                f"{path}: config.sampling compares the context {context!r}, which the model has never been shown "
                f"(config.cfg_dropout was {dropout.mode}, {shares}); switch that guidance off"
            )


def prompt(images: int) -> Sentence:
    """A prompt of `images` images and one instruction, as in an edit: per-item dropout empties it most often."""
    pixels = np.zeros((1, 1, 3), np.uint8)
    return Sentence((*(Image(pixels) for _ in range(images)), Text("x"), Target(pixels)))


def find_tokenizer(path: Path, given: str, trained: Mapping | None, model: ModelConfig) -> Tokenizer:
    """The tokenizer of some weights.

    Args:
        given: `config.data.tokenizer`, empty if it names none.
        trained: the config in the notes of the weights, None without one.

    Raises:
        UserError: none is named, none is beside the weights, and they were not trained with the demo tokenizer; or it
            has more ids than the model.
    """
    beside = path.parent / "bagel" / "tokenizer.json"  # where `macro.convert` writes that of a BAGEL checkpoint
    own = None if trained is None else trained.get("data", {}).get("tokenizer", "")
    if given or own:
        tokenizer = Tokenizer.from_file(given or own)
    elif own == "":
        tokenizer = Tokenizer.demo()
    elif beside.is_file():
        tokenizer = Tokenizer.from_file(beside)
    else:
        raise UserError(
            f"{path}: has no tokenizer: there is no {beside}, and config.data.tokenizer is empty; "
            "name the tokenizer.json of the weights (--config.data.tokenizer=...)"
        )
    if tokenizer.vocab_size > model.llm.vocab:
        raise UserError(f"{path}: has room for {model.llm.vocab} ids, but the tokenizer {tokenizer.vocab_size}")
    return tokenizer


def fitted(path: Path, model: ModelConfig, asked: Mapping) -> ModelConfig:
    """The model config of a file with the `dtype` of `config.model`.

    Args:
        asked: `config.model`: a whole model if it has a `variant`, else single fields; empty: the file's own.

    Raises:
        UserError: the config's sizes differ from the file's.
    """
    asked = dict(asked)
    name = asked.pop("variant", None)
    wanted = variants.replace_nested(model, asked) if name is None else variants.config_from_name(name, **asked)
    difference = variants.first_difference(model, wanted, variants.COMPOSER_SIZES)
    difference = difference or variants.first_difference(model, wanted, ("vae",))
    if difference:
        field, found, due = difference
        raise UserError(f"{path}: has model.{field}={found}, but config.model asks for {due}; use its own config")
    if model.binding and not wanted.binding:
        raise UserError(f"{path}: has a layout binding, but config.model.binding is False; leave that key out")
    return dataclasses.replace(model, dtype=wanted.dtype, binding=wanted.binding)
