"""Where a drawing model's parameters lie: in the type they are multiplied in, divided over the mesh as in training."""

import contextlib
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from macro.models import sharding_rules
from macro.models.params import cast_params, init_params
from macro.models.variants import ModelConfig
from macro.parallel import sharding


def placed(params: Mapping, config: ModelConfig, mesh: Mesh | None) -> dict:
    """Parameters `{"composer", "vae"}` ready to draw with; without a mesh on the one device that JAX takes."""
    if mesh is None:
        params = jax.tree.map(jax.numpy.asarray, dict(params))
        return params | {"composer": cast_params(params["composer"], config)}
    wanted = shapes(config, mesh)

    def put(x, like: jax.ShapeDtypeStruct):
        return jax.make_array_from_callback(x.shape, like.sharding, lambda index: x[index].astype(like.dtype))

    return jax.tree.map(put, {part: dict(params[part]) for part in wanted}, wanted)


def shapes(config: ModelConfig, mesh: Mesh) -> dict:
    """Shapes, types and shardings of what `placed` gives on a mesh."""

    def ready():
        params = init_params(jax.random.key(0), config)
        return params | {"composer": cast_params(params["composer"], config)}

    whole = jax.eval_shape(ready)
    laid = sharding.parameter_shardings(whole, mesh, sharding_rules.SHARDING_RULES)
    return sharding.abstract_with_shardings(whole, laid)


def on(mesh: Mesh | None) -> contextlib.AbstractContextManager:
    """The mesh set, where there is one."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)
