"""Parameters in the type that they are multiplied in.

Every layer casts its parameters to the activations' type before it uses them. Where that is bfloat16, casting the
whole tree first changes no result, and halves what a step gathers from other devices and what a drawing model keeps.
What is computed in float32 stays in it: norms' scales, time, binding and the vision tower's position table; and so do
embeddings and head, whose gradients are sums over many tokens.
"""

import re
from collections.abc import Mapping

import jax.numpy as jnp

from macro.models.variants import ModelConfig
from macro.utils import tree

_WIDE = re.compile(r"scale$|diffusion_head/time/|^binding$|position_embedding$|planner/(embed|head)$")


def computed(composer: Mapping, config: ModelConfig) -> dict:
    """The composer's parameters for a forward pass in `config.dtype`; differentiable."""
    flat = tree.flatten(composer)
    dtype = jnp.dtype(config.dtype)
    return tree.unflatten({path: x if _WIDE.search(path) else x.astype(dtype) for path, x in flat.items()})
