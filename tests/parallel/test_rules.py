"""Logical axes are a closed set; what they mean on a mesh; tokens joined without being sent."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from macro.parallel import mesh as mesh_lib
from macro.parallel import rules

SIZES = {"data": 1, "fsdp": 4, "fsdp_inner": 2, "tensor": 2, "sequence": 1}


def test_rows_are_divided_over_all_that_they_divide():
    both = PartitionSpec(("fsdp", "fsdp_inner"), None, None)
    assert rules.spec(SIZES, (16, 5, 6), "batch", "tokens", "width") == both
    assert rules.spec(SIZES, (4, 6), "batch", "heads") == PartitionSpec("fsdp", "tensor")
    assert rules.spec(SIZES, (3, 7), "batch", "heads") == PartitionSpec(None, None)


@pytest.mark.parametrize("table", [rules.ACTIVATIONS, rules.PARAMETERS])
def test_every_rule_names_axes_of_the_mesh(table):
    assert {axis for axes in table.values() for axis in axes} <= set(mesh_lib.AXES)
    assert table.keys() == rules.ACTIVATIONS.keys()


def test_a_misspelt_axis_is_named():
    with pytest.raises(ValueError, match="'bacth'; did you mean 'batch'"):
        rules.spec(SIZES, (3,), "bacth")
    with pytest.raises(ValueError, match="'bacth'; did you mean 'batch'"):
        rules.constrain(jnp.zeros(3), "bacth")


def test_constrain_wants_a_name_for_every_dimension():
    with pytest.raises(ValueError, match="2 logical axes"):
        rules.constrain(jnp.zeros((2, 3, 4)), "batch", "tokens")


def test_joined_and_split_again():
    parts = [jnp.arange(12.0).reshape(1, 6, 2), jnp.arange(8.0).reshape(1, 4, 2) + 50]
    whole = rules.join_tokens(parts)
    np.testing.assert_array_equal(whole, np.concatenate(parts, 1))
    for part, again in zip(parts, rules.split_tokens(whole, [6, 4]), strict=True):
        np.testing.assert_array_equal(part, again)
