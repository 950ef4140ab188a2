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
from macro.utils.errors import UserError


@flax.struct.dataclass
class TrainState:
    """`step` and `examples` (int32) count what has been done: steps, and the training samples in them."""

    step: Any
    examples: Any
    params: Any
    ema: Any
    opt_state: Any


def shapes(objective, config) -> dict:
    """Shapes of the objective's parameters. Files to start from do not change them, and may be large: none is read."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.init_from = {}
    return jax.eval_shape(lambda key: objective.init(key, config), jax.random.key(0))


def frozen(objective, config) -> tuple[str, ...]:
    """Patterns of the parameters that are not trained: the objective's, and those of `config.freeze`."""
    return (*objective.FROZEN, *config.get("freeze", ()))


def check_frozen(objective, config) -> None:
    """Raises UserError for a pattern that no parameter has, and for patterns that leave nothing to train."""
    try:
        trained, _ = tree.split(shapes(objective, config), frozen(objective, config))
    except ValueError as error:
        raise UserError(f"config.freeze: {error}") from None
    if not trained:
        raise UserError(f"config.freeze={config.freeze}: leaves nothing to train")


def create(objective, config, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step; its parameters follow from `config.seed`."""
    params = objective.init(jax.random.key(config.seed), config)
    trained, _ = tree.split(params, frozen(objective, config))
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
