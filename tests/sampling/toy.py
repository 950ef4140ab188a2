"""A small random model and a tokenizer of letters, so that sampling is tested without trained weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from macro.inputs.collate import collate
from macro.inputs.conditioning import CfgDropout
from macro.inputs.packing import PackingConfig, pack_sentence
from macro.objectives import joint, parts
from macro.sampling import contexts as contexts_lib
from macro.sampling.contexts import continue_prompt
from macro.sampling.options import PlanSamplingConfig, SamplingOptions
from macro.sampling.pipeline import Pipeline
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text

LETTERS = "".join(map(chr, range(32, 127)))
PIECES = (*LETTERS, " the", ".</", "think", "on <", "</think>", "></", "k>x")


@dataclasses.dataclass(frozen=True)
class ToyTokenizer:
    """Printable letters, and longer pieces that cut `</think>` in awkward places. Longest piece first."""

    image_start: int = len(PIECES)
    image_end: int = len(PIECES) + 1
    bos: int = len(PIECES) + 2
    eos: int = len(PIECES) + 3
    layout_start: int = len(PIECES) + 4
    layout_end: int = len(PIECES) + 5
    cells: tuple = tuple(len(PIECES) + 6 + n for n in range(13))
    vocab_size: int = len(PIECES) + 19

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            piece = max((piece for piece in PIECES if text.startswith(piece)), key=len)
            ids.append(PIECES.index(piece))
            text = text[len(piece) :]
        return ids

    def decode(self, ids) -> str:
        return "".join(PIECES[i] for i in ids if i < len(PIECES))


TOKENIZER = ToyTokenizer()
EXPERIMENT = ConfigDict({"model": {"variant": "XXS/64", "llm": {"vocab": 160}}, "init_from": {}})
CONFIG = parts.model_config(EXPERIMENT)
PACKING = PackingConfig(buckets=((64, 64, 2),), vision_side=8, latent_side=4, reference_max_side=32)


def random_like(shapes) -> dict:
    """Random weights of these shapes, also where initialisation puts zeros (binding, velocity): large enough
    that every input shows, and made without compiling anything."""
    rng = np.random.default_rng(0)

    def fill(path, shape):
        noise = rng.normal(size=shape.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return jnp.asarray(noise / np.sqrt(np.prod(shape.shape[:-1])))
        return jnp.asarray(0.1 * noise + (path[-1].key == "scale"))

    return jax.tree_util.tree_map_with_path(fill, shapes)


def random_params() -> dict:
    """Weights of `CONFIG`."""
    return random_like(jax.eval_shape(lambda key: joint.init(key, EXPERIMENT), jax.random.key(0)))


OPTIONS = SamplingOptions(
    num_timesteps=3,
    timestep_shift=1.0,
    cfg_text_scale=4.0,
    cfg_overall_scale=1.5,
    use_planner=True,
    plan=PlanSamplingConfig(1.0, 0.95, 1.0, 1.0, max_cot_tokens=12),
)


def pipeline(**options) -> Pipeline:
    return Pipeline(random_params(), CONFIG, TOKENIZER, PACKING, dataclasses.replace(OPTIONS, **options))


def prompt_of(sentences, contexts, packing=PACKING):
    """What these contexts read of the sentences."""
    return contexts_lib.prompt_of(sentences, contexts, "joint", TOKENIZER, packing)


def continuation_of(sentences, plans, prompt, packing=PACKING):
    """What follows: each sentence's plans, and its target."""
    ids = [[plan and plan.tokens(TOKENIZER) for plan in each] for each in plans]
    return continue_prompt(sentences, sentences[0].target.size, plans, ids, prompt, TOKENIZER, packing)


def random_image(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sentence() -> Sentence:
    """Two subjects, the second one's image smaller."""
    return Sentence(
        (
            Text("A "),
            Image(random_image(1), subject=1, number=1),
            Text("by "),
            Image(random_image(2, 16, 32), subject=2, number=2),
            Target(size=(64, 64)),
        )
    )


def training_row(plan: Plan, context: str) -> tuple[dict, jax.Array]:
    """`sentence()` with a plan, packed as training packs it where its dice say `context`; and values for the
    64 places of its latent stream, of which the target has the first 16."""
    dropout = CfgDropout(**{name: float(name == context) for name in ("no_text", "no_image", "null")})
    config = dataclasses.replace(PACKING, text=256, vision=64, latent=64, samples=1, noise_draws=1, cfg_dropout=dropout)
    whole = sentence().with_plan(plan)
    whole = whole.replace(spans=(*whole.spans[:-1], Target(random_image(9, 64, 64))))
    row = collate([pack_sentence(whole, TOKENIZER, config, np.random.default_rng(0))], config)
    x = jax.random.normal(jax.random.key(1), (1, 64, CONFIG.latent_channels))
    return jax.tree.map(lambda a: jnp.asarray(a)[None], row), x
