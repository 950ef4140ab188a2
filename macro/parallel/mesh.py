"""A run's devices as a mesh with named axes, and batches sharded over it.

    data         between slices, over the slower network: each slice holds all parameters and a share of the batch
    fsdp         batch and parameters, within a slice, over two axes (`sharding.FSDP` says why there are two)
    fsdp_inner
    tensor       heads and hidden units of every layer
    sequence     tokens of every packed sequence

    config.parallel = {"preset": "fsdp"}                              all of a slice's devices
    config.parallel = {"preset": "fsdp+tensor", "tensor": 4}          four devices share each layer
    config.parallel = {"preset": "fsdp+sequence", "sequence": 4}      four devices share each packed sequence
    config.parallel = {"preset": "fsdp+tensor+sequence", "tensor": 4, "sequence": 2}     both, for sampling

Axes are of type Auto, which linen's logical constraints require: the compiler partitions the computation, guided by
`sharding.constrain`.
Read next: `macro/parallel/sharding.py`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from macro.parallel.sharding import ACTIVATION_RULES, activation_sharding
from macro.utils.config import from_config
from macro.utils.errors import UserError

AXES = ("data", "fsdp", "fsdp_inner", "tensor", "sequence")
# A preset is named after its axes.
PRESETS = ("fsdp", "fsdp+tensor", "fsdp+sequence", "fsdp+tensor+sequence")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """`config.parallel`.

    Attributes:
        preset: one of `PRESETS`.
        tensor, sequence: devices on that axis, where the preset has it.
        slices: 0 reads it from the devices; a number divides them into that many, in their order.
        rules: (regex, logical axes) of parameters, applied before the model's own (`macro/models/sharding_rules.py`).
    """

    preset: str = "fsdp"
    tensor: int = 1
    sequence: int = 1
    slices: int = 0
    rules: tuple = ()

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise UserError(f"config.parallel.preset={self.preset!r}: choose one of {', '.join(PRESETS)}")
        for axis in ("tensor", "sequence"):
            size, had = getattr(self, axis), axis in self.preset.split("+")
            if size < 1:
                raise UserError(f"config.parallel.{axis}={size}: must be at least 1")
            if size > 1 and not had:
                raise UserError(f"config.parallel.{axis}={size}: the preset {self.preset!r} has no such axis; take 1")
        if self.slices < 0:
            raise UserError(f"config.parallel.slices={self.slices}: must be a number of slices, or 0")


def parallel_config(config) -> ParallelConfig:
    """`config.parallel`, read and checked; a config without it gets the default preset."""
    return from_config(ParallelConfig, config.get("parallel", {}), "parallel")


def make_mesh(config: ParallelConfig, devices: Sequence | None = None) -> Mesh:
    """A mesh over `devices`, or all of them. Use it as `with jax.set_mesh(mesh):`.

    Raises:
        UserError: slices, tensor and sequence do not divide the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = axis_sizes(config, len(devices), config.slices or _slices(devices))
    return Mesh(_placed(devices, sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def axis_sizes(config: ParallelConfig, devices: int, slices: int) -> tuple[int, ...]:
    """Sizes of `AXES` for these numbers of devices and slices; raises UserError, see `make_mesh`."""
    if devices % slices:
        raise _indivisible("slices", slices, devices, "devices")
    within = devices // slices
    for axis in ("tensor", "sequence"):
        if within % getattr(config, axis):
            raise _indivisible(axis, getattr(config, axis), within, "devices of a slice")
    spread = within // (config.tensor * config.sequence)
    inner = max(n for n in range(1, math.isqrt(spread) + 1) if spread % n == 0)
    return slices, spread // inner, inner, config.tensor, config.sequence


def _slices(devices: Sequence) -> int:
    """The number of slices by the devices' `slice_index`, which only devices of several slices have."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def _indivisible(axis: str, size: int, devices: int, what: str) -> UserError:
    nearest = min((n for n in range(1, devices + 1) if devices % n == 0), key=lambda n: (abs(n - size), n))
    return UserError(f"config.parallel.{axis}={size} does not divide the {devices} {what}; take {nearest}")


def _placed(devices: list, sizes: tuple[int, ...]) -> np.ndarray:
    """Devices [data, fsdp, fsdp_inner, tensor, sequence]; neighbours on an axis are close in the network."""
    if devices[0].platform != "tpu":
        return np.array(devices).reshape(sizes)
    slices, *shape = sizes
    if _slices(devices) == 1:
        parts = np.split(np.array(devices), slices)
        return np.stack([mesh_utils.create_device_mesh(shape, part, allow_split_physical_axes=True) for part in parts])
    return mesh_utils.create_hybrid_device_mesh(
        (1, *shape), (slices, *(1 for _ in shape)), devices, allow_split_physical_axes=True
    )


def row_parts(mesh: Mesh) -> int:
    """The number of shards of a batch on the mesh."""
    return math.prod(mesh.shape[axis] for axis in ACTIVATION_RULES["batch"])


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises UserError if a batch, in `accumulate` parts, cannot be sharded evenly over the devices."""
    parts = row_parts(mesh) * accumulate
    if batch_size % parts or batch_size < 1:
        times = f" in {accumulate} accumulated parts" if accumulate > 1 else ""
        raise UserError(
            f"config.batch_size={batch_size} does not divide over {row_parts(mesh)} devices{times}; "
            f"take {nearest_multiples(batch_size, parts)}"
        )


def nearest_multiples(size: int, parts: int) -> str:
    """The multiples of `parts` next to `size`, as text."""
    below = size // parts * parts
    return f"{below} or {below + parts}" if below > 0 else f"{parts}"


def my_rows(batch_size: int, mesh: Mesh) -> tuple[int, ...]:
    """The rows of a batch that this process must make: those of which its devices hold a part."""
    held = activation_sharding(mesh, (batch_size,), "batch").addressable_devices_indices_map((batch_size,))
    return tuple(sorted({row for (where,) in held.values() for row in range(*where.indices(batch_size))}))


def shard_batch(batch: Mapping, rows: Sequence[int], batch_size: int, mesh: Mesh) -> dict:
    """Shards a batch over the mesh by rows.

    Args:
        batch: nested dict of arrays `[len(rows), ...]`: this process's rows.
        rows: their indices in the global batch, as `my_rows` returns them.
        batch_size: rows of the global batch.
    """
    place = {row: number for number, row in enumerate(rows)}

    def whole(x):
        x = np.asarray(x)
        shape = (batch_size, *x.shape[1:])
        lies = activation_sharding(mesh, shape, "batch", *(None,) * (x.ndim - 1))

        def part(index):
            first, last, _ = index[0].indices(batch_size)
            return x[place[first] : place[last - 1] + 1][:, *index[1:]]

        return jax.make_array_from_callback(shape, lies, part)

    return jax.tree.map(whole, dict(batch))
