"""A model's parameters: random initialisation, and the cast to the type they are multiplied in.

Every layer casts its parameters to the activations' dtype before it uses them. Where that is bfloat16, casting the
whole tree first changes no result, and halves what a step gathers from other devices and what a sampler keeps. What is
computed in float32 stays float32: norms' scales, time, binding and the vision tower's position table; and so do
embeddings and head, whose gradients are sums over many tokens.
"""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from macro.models.composer import Composer, dummy_batch
from macro.models.vae import VAE
from macro.models.variants import ModelConfig
from macro.utils import tree

FP32_PARAMS = re.compile(r"scale$|diffusion_head/time/|^binding$|position_embedding$|planner/(embed|head)$")


def init_params(key: Array, config: ModelConfig) -> dict:
    """Random parameters `{"composer", "vae"}`, float32; under `jax.eval_shape` their shapes only."""
    composer_key, vae_key = jax.random.split(key)
    return {
        "composer": Composer(config).init(composer_key, *dummy_batch(config))["params"],
        "vae": VAE(config.vae).init(vae_key, jnp.zeros((1, 32, 32, 3)), vae_key)["params"],
    }


def cast_params(composer: Mapping, config: ModelConfig) -> dict:
    """The composer's parameters cast to `config.dtype` for a forward pass, but for `FP32_PARAMS`; differentiable."""
    flat = tree.flatten(composer)
    dtype = jnp.dtype(config.dtype)
    return tree.unflatten({path: x if FP32_PARAMS.search(path) else x.astype(dtype) for path, x in flat.items()})
