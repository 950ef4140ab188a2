"""Places a model's parameters for sampling: cast to their compute type, sharded over the mesh as in training."""

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
    """Parameters `{"composer", "vae"}` ready for sampling; without a mesh on JAX's default device.

    Tensors are cast and transferred one at a time, so that the parameters of a file (`weights.views`) are never all in
    memory in another type than the final one.
    """
    wanted = ready_shapes(config) if mesh is None else shapes(config, mesh)
    params = {part: dict(params[part]) for part in wanted}
    alone = SingleDeviceSharding(jax.devices()[0])

    def put(x, like: jax.ShapeDtypeStruct):
        return weights.on_devices(x, like.dtype, alone if mesh is None else like.sharding)

    return jax.tree.map(put, params, wanted)


def ready_shapes(config: ModelConfig) -> dict:
    """Shapes and types of the result of `placed`."""

    def ready():
        params = init_params(jax.random.key(0), config)
        return params | {"composer": cast_params(params["composer"], config)}

    return jax.eval_shape(ready)


def shapes(config: ModelConfig, mesh: Mesh) -> dict:
    """Shapes, types and shardings of the result of `placed` on a mesh."""
    whole = ready_shapes(config)
    laid = sharding.parameter_shardings(whole, mesh, sharding_rules.SHARDING_RULES)
    return sharding.abstract_with_shardings(whole, laid)


def on(mesh: Mesh | None) -> contextlib.AbstractContextManager:
    """A context manager that sets the mesh, if there is one."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)
