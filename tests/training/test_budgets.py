"""Golden bytes: what a device of known slices holds of each recipe's state, before anything is compiled.

A rule that is lost, or one that divides less, shows here on any machine. The figures were computed by these layouts and
checked against `macro.compile`, whose `argument_bytes` are these and a batch.
"""

import math
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh

from macro.objectives import joint
from macro.parallel.mesh import AXES
from macro.training import lora, state
from macro.utils.config import load

FOLDER = Path(__file__).parents[2] / "configs"
SLICES = {"256 fsdp": (1, 16, 16, 1, 1), "64 fsdp": (1, 8, 8, 1, 1), "64 tensor 4": (1, 4, 4, 4, 1)}
# Recipe -> mebibytes of parameters, average and optimizer state on one device of each slice.
GOLDEN = {
    "inset_bagel_7b": {"256 fsdp": 892.4, "64 fsdp": 3496.5, "64 tensor 4": 3523.3},
    "macro_bagel_7b": {"256 fsdp": 865.7, "64 fsdp": 3420.2, "64 tensor 4": 3443.6},
    "music_7b": {"256 fsdp": 198.0, "64 fsdp": 759.4, "64 tensor 4": 847.1},
}


def mebibytes(name, sizes):
    config = load(str(FOLDER / f"{name}.py"))
    whole, laid = state.placement(lora.adapted(joint, config), config, AbstractMesh(sizes, AXES))
    held = jax.tree.map(lambda x, where: math.prod(where.shard_shape(x.shape)) * x.dtype.itemsize, whole, laid)
    return sum(jax.tree.leaves(held)) / 2**20


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("slice_", SLICES)
def test_state_on_a_device(name, slice_):
    assert mebibytes(name, SLICES[slice_]) == pytest.approx(GOLDEN[name][slice_], rel=0.002)
