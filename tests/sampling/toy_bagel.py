"""A model of odd sizes with random weights: no size in it is BAGEL's, nor that of another test's model."""

import dataclasses

import jax
import jax.numpy as jnp
from sampling.toy import ToyTokenizer, random_image, random_like

from macro.inputs.packing import PackingConfig
from macro.models.composer import Composer, dummy_batch
from macro.models.vae import VAE
from macro.models.variants import LLMConfig, ModelConfig, VAEConfig, VisionConfig
from macro.sampling.options import SamplingOptions
from macro.sampling.pipeline import Pipeline
from macro.sentence.spans import Image, Sentence, Target, Text

CONFIG = ModelConfig(
    llm=LLMConfig(width=36, mlp=52, layers=3, heads=3, kv_heads=1, head_dim=12, vocab=150),
    vision=VisionConfig(width=30, mlp=44, layers=2, heads=5, patch=7, side=9),
    vae=VAEConfig(channels=8, multipliers=(1, 2, 1), res_blocks=1, z=3, groups=4),
    latent_side=6,
    binding=False,
)
STRIDE = CONFIG.pixels_per_token  # 8: latent patch 2 times VAE stride 4
PACKING = PackingConfig(
    buckets=((24, 40, 1), (40, 16, 1), (32, 24, 1)), patch=7, vision_side=9, latent_stride=STRIDE, latent_side=6,
    reference_max_side=42, reference_vae=True, binding=False, noise_draws=1, samples=1, text=220, vision=60, latent=60,
)  # fmt: skip
FIRST, SECOND = random_image(1, 24, 40), random_image(2, 40, 16)
PIECES = [FIRST, "one", SECOND, "and two"]
OPTIONS = SamplingOptions(
    cfg_text_scale=3.0,
    cfg_img_scale=2.0,
    cfg_renorm_type="global",
    num_timesteps=1,
    max_think_token_n=9,
    image_shapes=(32, 24),
)


class Tokenizer(ToyTokenizer):
    """Letters; the system prompt's line break is a space."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text.replace("\n", " "))


TOKENIZER = Tokenizer()


def _params() -> dict:
    key, side = jax.random.key(0), CONFIG.vae.stride
    shapes = {
        "composer": jax.eval_shape(lambda: Composer(CONFIG).init(key, *dummy_batch(CONFIG))["params"]),
        "vae": jax.eval_shape(lambda: VAE(CONFIG.vae).init(key, jnp.zeros((1, side, side, 3)), key)),
    }
    return random_like(shapes | {"vae": shapes["vae"]["params"]})


def sentence_of(pieces) -> Sentence:
    """Texts and images in this order, and a target of 32 x 24."""
    spans = [Text(piece) if isinstance(piece, str) else Image(piece) for piece in pieces]
    return Sentence((*spans, Target(size=(32, 24))))


PIPELINE = Pipeline(_params(), CONFIG, TOKENIZER, PACKING, OPTIONS)
# The same, whose images have BAGEL's free sizes.
FREE = Pipeline(PIPELINE.params, CONFIG, TOKENIZER, dataclasses.replace(PACKING, buckets=None), OPTIONS)
