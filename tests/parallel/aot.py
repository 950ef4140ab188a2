"""Devices of TPU topologies that nobody has here, to compile for. Needs the libtpu wheel, no TPU."""

import os

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def mesh_of(topology: str, shape: dict[str, int]) -> Mesh:
    """A mesh over the first devices of a topology; skips the test where libtpu is missing."""
    pytest.importorskip("libtpu", reason="compiling for a TPU ahead of time needs the libtpu wheel")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Another process may be compiling with libtpu at the same time.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    devices = topologies.get_topology_desc(topology, "tpu").devices
    count = int(np.prod(list(shape.values())))
    grid = np.array(devices[:count]).reshape(*shape.values())
    return Mesh(grid, tuple(shape), axis_types=(AxisType.Auto,) * len(shape))


def spec_of(mesh: Mesh, shape: tuple[int, ...], dtype, *axes: str | None) -> jax.ShapeDtypeStruct:
    """An array of that shape, divided over those axes of the mesh."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))
