"""Everything that a run is at one moment; what a checkpoint holds beside the place in the data.

`params` is the whole tree. Parameters that the objective freezes have neither an average nor optimizer
state, so `ema` and `opt_state` are shaped by the trained part alone.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from macro.utils import tree


@flax.struct.dataclass
class TrainState:
    """`step` and `examples` (int32) count what has been done: steps, and the training samples in them."""

    step: Any
    examples: Any
    params: Any
    ema: Any
    opt_state: Any


def create(objective, config, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step; its parameters follow from `config.seed`."""
    params = objective.init(jax.random.key(config.seed), config)
    trained, _ = tree.split(params, objective.FROZEN)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        examples=jnp.zeros((), jnp.int32),
        params=params,
        # A copy: the step donates its buffers, and no buffer can be donated twice.
        ema=jax.tree.map(jnp.copy, trained),
        opt_state=optimizer.init(trained),
    )


def averaged(state: TrainState) -> Mapping:
    """The parameters to draw pictures and measure with: the running average, and the frozen ones as they
    are.
    """
    return tree.merge(state.params, state.ema)
