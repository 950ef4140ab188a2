"""The devices of a run as a mesh with named axes, and batches laid over it.

Axes are of the Auto kind: the compiler divides the computation, guided by constraints (`rules.constrain`),
and linen's logical constraints need them so. One axis `data` for now: every device holds all parameters and
a part of the batch's rows.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from macro.parallel.rules import sharding
from macro.utils.errors import UserError

AXES = ("data",)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices`, or all of them. Use it as `with jax.set_mesh(mesh):`."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises UserError if the rows of a batch cannot be dealt evenly to the devices."""
    parts = mesh.shape["data"]
    if batch_size % parts or batch_size < 1:
        below = batch_size // parts * parts
        choices = f"{below} or {below + parts}" if below > 0 else f"{parts}"
        raise UserError(
            f"config.batch_size={batch_size} does not divide over {parts} devices; take {choices}"
        )


def shard_batch(batch: Mapping, mesh: Mesh) -> dict:
    """Lays a nested dict of arrays `[b, ...]`, this process's rows, over the mesh by rows."""
    rows = sharding(mesh, "batch")
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, np.asarray(x)), dict(batch))
