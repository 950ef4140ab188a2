"""Every recipe is a promise: a toy BAGEL is imported, trained for a step as the recipe says, saved, and drawn with."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.checkpoints.bagel import toy

import macro
from macro.inputs.conditioning import CfgDropout
from macro.inputs.image_spec import ImageSpec
from macro.inputs.packing import example_segments
from macro.inputs.tokenize_example import VaeSegment, VitSegment
from macro.inputs.tokenizer import Tokenizer
from macro.models.checkpoints import weights
from macro.models.checkpoints.bagel.checkpoint import open_folder
from macro.models.checkpoints.bagel.convert import import_bagel
from macro.models.variants import LLMConfig, ModelConfig, VAEConfig, VisionConfig
from macro.objectives.parts import model_config
from macro.sampling.compatibility import LEAST_PROBABILITY, prompt
from macro.sampling.options import read_options
from macro.sentence.prompt import image_first, in_sentence
from macro.sentence.spans import Image, Sentence, Target
from macro.train import main
from macro.training import data
from macro.utils import tree
from macro.utils.config import load
from macro.utils.images import save

FOLDER = Path(__file__).parents[2] / "configs"
RECIPES = ("bagel_7b", "macro_bagel_7b", "inset_bagel_7b", "music_7b")
# BAGEL's proportions: GQA, an untied head, ViT patches of 14, latent tokens of 16 pixels, two experts.
MODEL = ModelConfig(
    llm=LLMConfig(width=32, mlp=48, layers=2, heads=4, kv_heads=2, head_dim=8, vocab=Tokenizer.demo().vocab_size),
    vision=VisionConfig(width=24, mlp=40, layers=1, heads=2, patch=14, side=5),
    vae=VAEConfig(channels=32, multipliers=(1, 1, 1, 1), res_blocks=1, z=4),
    latent_side=4,
    binding=False,
)
OVERRIDES = {
    "llm": dataclasses.asdict(MODEL.llm),
    "vision": dataclasses.asdict(MODEL.vision),
    "vae": dataclasses.asdict(MODEL.vae),
    "latent_side": MODEL.latent_side,
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """`macro.convert --from=bagel` of a toy checkpoint that comes with a tokenizer; and samples to train on."""
    folder = tmp_path_factory.mktemp("imported")
    source = toy.write(folder / "BAGEL", *toy.tensors(MODEL), MODEL)
    Tokenizer.demo().save(source / "tokenizer.json")
    import_bagel(open_folder(source), folder / "bagel", {"source": "BAGEL"})
    rng = np.random.default_rng(0)
    for task, count in (("text_to_image", 0), ("edit", 1), ("customization", 2)):
        record = {"task": task, "prompt": "a red cube", "input_images": [], "output_image": "target.png"}
        (folder / "samples" / task).mkdir(parents=True)
        for name in (*(f"{n}.png" for n in range(count)), "target.png"):
            save(folder / "samples" / task / name, rng.integers(0, 256, (64, 48, 3), np.uint8))
        record["input_images"] = [f"{n}.png" for n in range(count)]
        (folder / "samples" / task / "0.json").write_text(json.dumps(record))
    return folder


def recipe(name, folder):
    """The recipe with the toy's sizes; all else is as it says, but for the lengths of the packed sequences."""
    config = load(str(FOLDER / f"{name}.py"))
    with config.unlocked():
        config.total_steps = config.save_every_steps = 1
        config.eval_every_steps, config.batch_size, config.packing.window = 0, 1, 4
        config.init_from = {part: str(folder / "bagel" / "model.safetensors") for part in ("composer", "vae")}
        config.model.update(OVERRIDES)
        config.data.tokenizer = str(folder / "bagel" / "bagel" / "tokenizer.json")
        config.data.workers = 0
        config.packing.update({"text": 512, "vision": 96, "latent": 96, "samples": 2})
        config.packing.reference_max_side, config.packing.reference_min_side = 56, 28
        config.packing.buckets = ((64, 64, 4), (64, 48, 8), (48, 64, 4))
        if config.packing.get("reference_pixels"):
            config.packing.reference_pixels = ((2, 4096), (10, 2304))
        if config.data.name == "scenes":
            scenes = {"num": 4, "size": 64, "reference_size": 28, "rays": 1, "counts": (1, 1) + (0,) * 10}
            config.data.update(scenes | {"dir": str(folder / "scenes")})
        else:
            config.data.dir = str(folder / "samples")
            config.data.mix = (("text_to_image", 1.0), ("edit", 1.0), ("customization", 1.0))
            config.tasks = ("text_to_image", "edit", "customization", "compose")
        config.sampling.num_timesteps = 2
    return config


@pytest.mark.parametrize("name", [RECIPES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in RECIPES[1:])])
def test_a_recipe_starts_from_bagel_trains_saves_and_draws(name, imported, tmp_path):
    config = recipe(name, imported)
    assert main(config, str(tmp_path)) == 0
    pipeline = macro.load(tmp_path / "model.safetensors")
    packing = data.packing_config(config, model_config(config))
    assert pipeline.config.dtype == config.model.dtype == "bfloat16"
    assert pipeline.packing.images == packing.images and pipeline.packing.arrangement == packing.arrangement
    kinds = {str(x.dtype) for x in jax.tree.leaves(pipeline.params["composer"]["mot"]["blocks"])}
    assert kinds <= {"bfloat16", "float32"} and "bfloat16" in kinds
    source = np.zeros((100, 80, 3), np.uint8)
    drawn = pipeline.compose("make it blue", [], source=source)
    assert drawn.pixels.shape == (*packing.images.output_size(like=(100, 80)), 3)
    noted = weights.notes_of(weights.reader(tmp_path / "model.safetensors"))["trained_with"]
    assert noted["dtype"] == "bfloat16" and noted["cfg_dropout"]["mode"] == "joint"
    if name == "music_7b":  # its adapters beside the imported weights are the model that it saved
        adapted = macro.load(imported / "bagel" / "model.safetensors", config, tmp_path / "lora.safetensors")
        found, saved = (tree.flatten(each.params["composer"]) for each in (adapted, pipeline))
        assert found.keys() == saved.keys()
        for path, leaf in found.items():
            pair = np.asarray(leaf, np.float32), np.asarray(saved[path], np.float32)
            np.testing.assert_allclose(*pair, rtol=1e-2, atol=1e-3, err_msg=path)


def packing_of(name):
    config = load(str(FOLDER / f"{name}.py"))
    return config, data.packing_config(config, model_config(config))


sizes = st.tuples(st.integers(64, 3000), st.integers(64, 3000))


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=15, deadline=None)
@given(given=st.lists(sizes, max_size=12), source=st.none() | sizes)
def test_the_tokens_of_any_reference_are_the_same_in_training_and_drawing(name, given, source):
    _, packing = packing_of(name)
    images = [Image(black(size), role="reference") for size in given]
    if source is not None:
        images = [Image(black(source), role="source"), *images[:11]]
    spans = in_sentence("a red cube", images)
    undropped = dataclasses.replace(packing, cfg_dropout=CfgDropout("joint", 0.0, 0.0, 0.0))
    trained = Sentence((*spans, Target(black((1024, 1024)))))
    drawn = Sentence((*spans, Target(size=(512, 512))))
    rng, tokenizer = np.random.default_rng(0), Tokenizer.demo()
    copies = [
        [shape_of(piece) for piece in example_segments(sentence, tokenizer, undropped, each) if is_given(piece)]
        for sentence, each in ((trained, rng), (drawn, None))
    ]
    assert copies[0] == copies[1] and len(copies[0]) >= len(images)
    # The sampler that reads an image at a time asks the same rule, which came with the weights.
    rule, expected = ImageSpec.from_dict(json.loads(json.dumps(packing.images.to_dict()))), []
    for image in images:
        size = image.pixels.shape[:2]
        if image.role == "source" or packing.reference_vae:
            expected.append(("vae", *rule.vae_size(size, len(images))))
        expected.append(("vit", *rule.vit_size(size, len(images))))
    strides = {"vae": packing.latent_stride, "vit": packing.patch}
    assert [(kind, rows * strides[kind], columns * strides[kind]) for kind, rows, columns in copies[0]] == expected


def black(size):
    return np.broadcast_to(np.uint8(0), (*size, 3))


def is_given(piece):
    return isinstance(piece, VitSegment) or isinstance(piece, VaeSegment) and piece.t_raw is None


def shape_of(piece):
    return "vit" if isinstance(piece, VitSegment) else "vae", piece.rows, piece.columns


@pytest.mark.parametrize("name", RECIPES)
def test_training_shows_every_context_that_guidance_compares(name):
    """To at least 1% of the samples, however many references they have, in each arrangement."""
    config, packing = packing_of(name)
    contexts = read_options(config.sampling).guidance.contexts
    assert len(contexts) == 3
    for count in range(13):
        images = [Image(black((4, 4))) for _ in range(count)]
        marked = " ".join(f"<image {n + 1}>" for n in range(count)) + " and more"
        for spans in (in_sentence(marked, images), image_first(marked, images), prompt(count).spans[:-1]):
            sentence = Sentence((*spans, Target(size=(64, 64))))
            likely = packing.cfg_dropout.probabilities(sentence, packing.reference_vae)
            assert min(likely[context] for context in contexts) >= LEAST_PROBABILITY, (count, likely)
