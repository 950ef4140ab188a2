"""Logical axes are a closed set; batches are dealt to devices by rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from macro.parallel import mesh as mesh_lib
from macro.parallel import rules
from macro.utils.errors import UserError


def test_only_the_batch_is_divided():
    assert rules.spec("batch", "tokens", "width") == PartitionSpec("data", None, None)
    assert rules.spec(None, "heads") == PartitionSpec(None, None)


def test_every_rule_names_an_axis_of_the_mesh():
    assert {axis for axis in rules.RULES.values() if axis} <= set(mesh_lib.AXES)


@pytest.mark.parametrize("use", [rules.spec, lambda name: rules.constrain(jnp.zeros(3), name)])
def test_a_misspelt_axis_is_named(use):
    with pytest.raises(ValueError, match="'bacth'; did you mean 'batch'"):
        use("bacth")


def test_constrain_wants_a_name_for_every_dimension():
    with pytest.raises(ValueError, match="2 logical axes"):
        rules.constrain(jnp.zeros((2, 3, 4)), "batch", "tokens")


def test_constrain_divides_inside_jit():
    mesh = mesh_lib.make_mesh()
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: rules.constrain(x * 2, "batch", None))(jnp.ones((len(jax.devices()), 3)))
    assert y.sharding.is_equivalent_to(rules.sharding(mesh, "batch", None), 2)


def test_shard_batch_keeps_values_and_nesting():
    mesh = mesh_lib.make_mesh()
    b = 2 * len(jax.devices())
    batch = {"text": {"ids": np.arange(3 * b).reshape(b, 3)}, "examples": np.zeros((b, 1), np.int32)}
    placed = mesh_lib.shard_batch(batch, mesh)
    assert np.array_equal(placed["text"]["ids"], batch["text"]["ids"])
    assert placed["text"]["ids"].sharding.spec == PartitionSpec("data")


def test_a_batch_that_does_not_divide_is_named_with_the_nearest_choices():
    class FourDevices:
        shape = {"data": 4}

    check = mesh_lib.check_batch_size.__wrapped__  # without the hook: the mesh is a stand-in
    check(8, FourDevices)
    with pytest.raises(UserError, match="batch_size=6 .* 4 devices; take 4 or 8"):
        check(6, FourDevices)
    with pytest.raises(UserError, match="take 4"):
        check(2, FourDevices)
