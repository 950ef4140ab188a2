"""Where a drawing model's parameters lie: in the type they are multiplied in, divided over the mesh as in training."""

import contextlib
from collections.abc import Mapping

import jax
from jax.sharding import Mesh, SingleDeviceSharding

from macro.models import sharding_rules
from macro.models.checkpoints import weights
from macro.models.params import cast_params, init_params
from macro.models.variants import ModelConfig
from macro.parallel import sharding


def placed(params: Mapping, config: ModelConfig, mesh: Mesh | None) -> dict:
    """Parameters `{"composer", "vae"}` ready to draw with; without a mesh on the one device that JAX takes.

    Each is cast on its own on its way to the devices, so that a file of views (`weights.views`) is never whole in
    memory in another type than the one that stays.
    """
    wanted = ready_shapes(config) if mesh is None else shapes(config, mesh)
    params = {part: dict(params[part]) for part in wanted}
    alone = SingleDeviceSharding(jax.devices()[0])

    def put(x, like: jax.ShapeDtypeStruct):
        return weights.on_devices(x, like.dtype, alone if mesh is None else like.sharding)

    return jax.tree.map(put, params, wanted)


def ready_shapes(config: ModelConfig) -> dict:
    """Shapes and types of what `placed` gives."""

    def ready():
        params = init_params(jax.random.key(0), config)
        return params | {"composer": cast_params(params["composer"], config)}

    return jax.eval_shape(ready)


def shapes(config: ModelConfig, mesh: Mesh) -> dict:
    """Shapes, types and shardings of what `placed` gives on a mesh."""
    whole = ready_shapes(config)
    laid = sharding.parameter_shardings(whole, mesh, sharding_rules.SHARDING_RULES)
    return sharding.abstract_with_shardings(whole, laid)


def on(mesh: Mesh | None) -> contextlib.AbstractContextManager:
    """The mesh set, where there is one."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)
