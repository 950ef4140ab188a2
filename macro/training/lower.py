"""The training step of a config, lowered for devices that need not be present; `macro.compile` compiles it.

It is the step that `macro.train` runs, on a batch of the config's packing.
"""

import dataclasses

import jax
from jax.sharding import Mesh

from macro.inputs.collate import collate
from macro.inputs.packing import PackingConfig
from macro.objectives.parts import model_config
from macro.parallel import sharding
from macro.parallel.mesh import check_batch_size
from macro.parallel.sharding import activation_sharding
from macro.training import data, lora
from macro.training.state import placement
from macro.training.step import make_step
from macro.utils import tree


@dataclasses.dataclass(frozen=True)
class LoweredStep:
    """`params`: how many; `unsharded_share`: see `parallel/sharding.py`; `tokens`: capacity of a batch."""

    step: jax.stages.Lowered
    params: int
    unsharded_share: float
    tokens: int


def lower_step(objective, config, mesh: Mesh) -> LoweredStep:
    """Lowers the training step for the mesh's devices.

    Raises:
        UserError: a config that `macro.train` would refuse on these devices.
    """
    check_batch_size(config.batch_size, mesh, config.get("grad_accum_steps", 1))
    objective = lora.adapted(objective, config)
    packing = data.packing_config(config, model_config(config))
    shapes, shardings = placement(objective, config, mesh)
    state = sharding.abstract_with_shardings(shapes, shardings)
    with jax.set_mesh(mesh):
        step = make_step(objective, config, mesh).lower(state, batch_shapes(packing, config.batch_size, mesh))
    share, _ = sharding.unsharded_share(tree.flatten(shapes.params), tree.flatten(shardings.params), mesh)
    tokens = config.batch_size * (packing.text + packing.vision + packing.latent)
    return LoweredStep(step, tree.count(shapes.params), share, tokens)


def batch_shapes(packing: PackingConfig, batch_size: int, mesh: Mesh) -> dict:
    """Shapes and shardings of a batch of `batch_size` packed sequences."""

    def of(x):
        shape = (batch_size, *x.shape)
        rows = activation_sharding(mesh, shape, "batch", *(None,) * x.ndim)
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=rows)

    return jax.tree.map(of, collate([], packing))
