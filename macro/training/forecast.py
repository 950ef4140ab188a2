"""A config's training step on devices that are not here: `macro.compile` for training.

The step is the one that `macro.train` runs, on a batch of the config's rows.
Read next: `macro/parallel/fit.py`, `macro/training/step.py`.
"""

import dataclasses

import jax
from jax.sharding import Mesh

from macro.inputs.packing import PackingConfig
from macro.inputs.rows import make_row
from macro.objectives.parts import model_config
from macro.parallel import layout
from macro.parallel.chips import Chip
from macro.parallel.fit import Fit, describe, fit
from macro.parallel.mesh import check_batch_size, row_parts
from macro.parallel.rules import sharding
from macro.training import data, lora
from macro.training.state import placement
from macro.training.step import make_step
from macro.utils import tree


@dataclasses.dataclass(frozen=True)
class Forecast:
    """`params`: numbers in the parameters; `unsharded_share`: see `layout.unsharded`; `tokens`: places in a batch."""

    params: int
    unsharded_share: float
    tokens: int
    fit: Fit


def forecast(objective, config, mesh: Mesh, chip: Chip) -> Forecast:
    """Compiles the training step for the mesh's devices.

    Raises:
        UserError: whatever `macro.train` would refuse of this config on these devices.
    """
    check_batch_size(config.batch_size, mesh, config.get("grad_accum_steps", 1))
    objective = lora.adapted(objective, config)
    packing = data.packing_config(config, model_config(config))
    whole, laid = placement(objective, config, mesh)
    state = layout.described(whole, laid)
    with jax.set_mesh(mesh):
        lowered = make_step(objective, config, mesh).lower(state, batch_shapes(packing, config.batch_size, mesh))
        fitted = fit(lowered, chip)
    share, _ = layout.unsharded(tree.flatten(whole.params), tree.flatten(laid.params), mesh)
    tokens = config.batch_size * (packing.text + packing.vision + packing.latent)
    return Forecast(tree.count(whole.params), share, tokens, fitted)


def batch_shapes(packing: PackingConfig, rows: int, mesh: Mesh) -> dict:
    """Shapes and shardings of a batch of so many rows."""

    def of(x):
        shape = (rows, *x.shape)
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding(mesh, shape, "batch", *(None,) * x.ndim))

    return jax.tree.map(of, make_row([], packing))


def record(found: Forecast, mesh: Mesh) -> dict:
    """The forecast as JSON; `flops` of the whole step on all devices, all else of one device.

    What is unknown where the program does not fit is None.
    """
    fitted, costs = found.fit, found.fit.costs
    return {
        "params": found.params,
        "unsharded_share": found.unsharded_share,
        "tokens": found.tokens,
        "devices": mesh.size,
        "fits": fitted.fits,
        "argument_bytes": fitted.argument_bytes,
        "temporary_bytes": fitted.temporary_bytes,
        "peak_bytes": fitted.peak_bytes,
        "hbm_bytes": fitted.chip.hbm_bytes,
        "flops": costs and costs.flops * mesh.size,
        "flops_per_device": costs and costs.flops,
        "kernel_flops_per_device": costs and costs.kernel_flops,
        "hbm_traffic_bytes": costs and costs.hbm_bytes,
        "collective_bytes": costs and costs.collective_bytes,
        "step_seconds_roofline": fitted.seconds,
        "bound_by": fitted.bound_by,
        "culprits": list(fitted.culprits),
        "unknown": list(costs.unknown) if costs else [],
    }


def table(found: Forecast, mesh: Mesh, topology: str) -> str:
    """The forecast for a person."""
    fitted = found.fit
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1) or "one device"
    lines = [
        f"{topology}: {mesh.size} devices ({axes})",
        f"parameters        {found.params:,}, {found.unsharded_share:.2%} of their bytes not divided",
        f"batch             {found.tokens:,} places for tokens, {found.tokens // row_parts(mesh):,} a device",
        *describe(fitted),
    ]
    if fitted.costs:
        lines.append(f"throughput        at most {found.tokens / fitted.seconds:,.0f} tokens a second on all devices")
    return "\n".join(lines)
