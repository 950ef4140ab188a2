"""A model's parameters: random initialisation, and the cast to their compute type.

Every layer casts its parameters to the activations' dtype before it uses them. If that is bfloat16, casting the whole
tree first changes no result, but halves what a step gathers from other devices and what a sampler holds in memory.
Parameters that are used in float32 stay float32: norm scales, time embedding, binding and the vision encoder's position
table; so do embeddings and head, whose gradients are sums over many tokens.
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
    """Random parameters `{"composer", "vae"}`, float32; under `jax.eval_shape` only their shapes."""
    composer_key, vae_key = jax.random.split(key)
    return {
        "composer": Composer(config).init(composer_key, *dummy_batch(config))["params"],
        "vae": VAE(config.vae).init(vae_key, jnp.zeros((1, 32, 32, 3)), vae_key)["params"],
    }


def cast_params(composer: Mapping, config: ModelConfig) -> dict:
    """The composer's parameters, except `FP32_PARAMS`, cast to `config.dtype` for a forward pass; differentiable."""
    flat = tree.flatten(composer)
    dtype = jnp.dtype(config.dtype)
    return tree.unflatten({path: x if FP32_PARAMS.search(path) else x.astype(dtype) for path, x in flat.items()})
