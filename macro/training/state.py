"""The training state of a run: everything that a checkpoint holds besides the data position.

`params` is the whole tree. Parameters that the objective freezes have neither an average nor optimizer
state, so `ema` and `opt_state` have the structure of the trained part. All arrays are created sharded: none is ever
unsharded on one device unless its sharding says so.
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
    """`step` and `examples` (int32) count the steps taken and the training samples in them."""

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
    """Raises UserError for a pattern that matches no parameter, and for patterns that leave nothing to train."""
    try:
        trained, _ = tree.split(shapes(objective, config), frozen(objective, config))
    except ValueError as error:
        raise UserError(f"config.freeze: {error}") from None
    if not trained:
        raise UserError(f"config.freeze={config.freeze}: leaves nothing to train")


def placement(objective, config, mesh: sharding.AnyMesh) -> tuple[TrainState, TrainState]:
    """Shapes of the whole state, and the sharding of each of its arrays.

    Raises:
        UserError: rules that do not fit or leave too many parameters unsharded; see `parallel/sharding.py`.
    """
    of_params = shapes(objective, config)
    laid = sharding.parameter_shardings(of_params, mesh, objective.AXES, parallel_config(config).rules)
    whole = jax.eval_shape(lambda params: _beginning(params, objective, config), of_params)
    return whole, sharding.opt_state_shardings(whole, of_params, laid, mesh)


def create(objective, config, mesh: Mesh) -> TrainState:
    """The state before the first step, sharded over the mesh."""
    _, laid = placement(objective, config, mesh)
    begin = jax.jit(lambda params: _beginning(params, objective, config), out_shardings=laid, donate_argnums=0)
    return begin(first_params(objective, config, mesh))


def first_params(objective, config, mesh: Mesh) -> dict:
    """The parameters before the first step, sharded over the mesh: drawn from `config.seed`, or read from the files
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
    """The parameters for sampling and evaluation: the running average of the trained ones, and the frozen
    ones.
    """
    return tree.merge(state.params, state.ema)
