"""Everything that a run is at one moment; what a checkpoint holds beside the place in the data.

`params` is the whole tree. Parameters that the objective freezes have neither an average nor optimizer
state, so `ema` and `opt_state` are shaped by the trained part alone. All of it is born where it will lie on the mesh:
nothing is ever whole on one device that is not meant to be.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from macro.objectives.parts import read_part, start_files
from macro.parallel import sharding
from macro.parallel.mesh import parallel_config
from macro.training import optim
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
    """Shapes of the objective's parameters."""
    return jax.eval_shape(lambda: objective.init(jax.random.key(config.seed), config))


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


def placement(objective, config, mesh: sharding.AnyMesh) -> tuple[TrainState, TrainState]:
    """Shapes of the whole state, and how each of its arrays lies on the mesh.

    Raises:
        UserError: rules that do not fit, or that leave too much of the parameters whole; see `parallel/sharding.py`.
    """
    of_params = shapes(objective, config)
    laid = sharding.parameter_shardings(of_params, mesh, objective.AXES, parallel_config(config).rules)
    whole = jax.eval_shape(lambda params: _beginning(params, objective, config), of_params)
    return whole, sharding.opt_state_shardings(whole, of_params, laid, mesh)


def create(objective, config, mesh: Mesh) -> TrainState:
    """The state before the first step, laid over the mesh."""
    _, laid = placement(objective, config, mesh)
    begin = jax.jit(lambda params: _beginning(params, objective, config), out_shardings=laid, donate_argnums=0)
    return begin(first_params(objective, config, mesh))


def first_params(objective, config, mesh: Mesh) -> dict:
    """The parameters before the first step, laid over the mesh: they follow from `config.seed`, or stand in the files
    that `config.init_from` names."""
    whole, laid = placement(objective, config, mesh)
    files = start_files(config, whole.params)

    def made_up(key):
        return {part: params for part, params in objective.init(key, config).items() if part not in files}

    lying = {part: where for part, where in laid.params.items() if part not in files}
    params = jax.jit(made_up, out_shardings=lying)(jax.random.key(config.seed))
    for part, path in files.items():
        params[part] = read_part(part, path, config, whole.params[part], laid.params[part])
    return {part: params[part] for part in whole.params}


def _beginning(params: Mapping, objective, config) -> TrainState:
    trained, _ = tree.split(params, frozen(objective, config))
    optimizer = optim.optimizer(optim.optim_config(config), config.total_steps)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        examples=jnp.zeros((), jnp.int32),
        params=params,
        # A copy: the step donates its buffers, and no buffer can be donated twice.
        ema=jax.tree.map(jnp.copy, trained),
        opt_state=optimizer.init(trained),
    )


def averaged(state: TrainState) -> Mapping:
    """The parameters to draw images and measure with: the running average, and the frozen ones as they
    are.
    """
    return tree.merge(state.params, state.ema)
