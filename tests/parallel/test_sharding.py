"""Logical axes and rules: the first rule that matches a path, every mesh axis where it divides; joined tokens."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from macro.models import sharding_rules, variants
from macro.models.params import init_params
from macro.parallel import sharding
from macro.parallel.mesh import AXES
from macro.parallel.sharding import FSDP
from macro.utils import tree
from macro.utils.errors import UserError

RULES = (("/bias$", ()), ("q/kernel$", ("width", "heads")), ("out/kernel$", ("mlp", "width")))
SHAPES = {
    "q": {"kernel": jax.ShapeDtypeStruct((8, 12), jnp.float32), "bias": jax.ShapeDtypeStruct((12,), jnp.float32)},
    "out": {"kernel": jax.ShapeDtypeStruct((12, 8), jnp.float32)},
}


def mesh_of(*sizes):
    return AbstractMesh(sizes, AXES)


def test_the_first_rule_that_finds_a_path_counts_and_given_ones_go_before():
    found = sharding.logical_axes(SHAPES, RULES, given=[("out/kernel$", (None, "width"))])
    assert found == {"out/kernel": (None, "width"), "q/bias": (None,), "q/kernel": ("width", "heads")}


def test_mistakes_are_named():
    for own, given, line in (
        (RULES[:2], (), r"none covers out/kernel \(12, 8\)"),
        (RULES, [("k/kernel$", ("width", "heads"))], "'k/kernel\\$' matches none of the parameters out/kernel"),
        (RULES, [("q/kernel$", ("width", "hedas"))], "unknown logical axis 'hedas'; did you mean 'heads'"),
        (RULES, [("q/kernel$", ("width",))], r"has 1 axes, but q/kernel has shape \(8, 12\)"),
        (RULES, ["q/kernel"], "'q/kernel' must be .regex, axes."),
        (RULES, [("q(", ())], "'q.': "),
    ):
        with pytest.raises(UserError, match=f"config.parallel.rules: .*{line}"):
            sharding.logical_axes(SHAPES, own, given)


def test_every_mesh_axis_shards_the_first_dimension_that_it_can():
    for shape, names, sizes, expected in (
        ((28, 3584, 18944), ("layers", "width", "mlp"), (1, 16, 16, 1, 1), (None, ("fsdp", "fsdp_inner"), None)),
        # 1152 = 9 * 128 is no multiple of 256: the other dimension takes the second axis.
        ((26, 1152, 1152), ("layers", "width", "heads"), (1, 16, 16, 1, 1), (None, "fsdp", "fsdp_inner")),
        ((28, 3584, 18944), ("layers", "width", "mlp"), (1, 4, 4, 4, 1), (None, ("fsdp", "fsdp_inner"), "tensor")),
        ((28, 3584, 512), ("layers", "width", "kv_heads"), (2, 4, 2, 1, 4), (None, (*FSDP, "sequence"), None)),
        ((7, 5), ("width", "mlp"), (1, 2, 2, 1, 1), (None, None)),
    ):
        assert sharding.parameter_spec(shape, names, dict(zip(AXES, sizes, strict=True))) == PartitionSpec(*expected)


@pytest.fixture(scope="module")
def seven_billion():
    return jax.eval_shape(lambda: init_params(jax.random.key(0), variants.config_from_name("7B/1024")))


def test_the_model_of_seven_billion_is_sharded_by_its_own_rules(seven_billion):
    for sizes in ((1, 16, 16, 1, 1), (1, 8, 8, 1, 1), (1, 8, 4, 8, 1), (4, 4, 4, 1, 4)):
        laid = sharding.parameter_shardings(seven_billion, mesh_of(*sizes), sharding_rules.SHARDING_RULES)
        flat, where = tree.flatten(seven_billion), tree.flatten(laid)
        share, _ = sharding.unsharded_share(flat, where, mesh_of(*sizes))
        assert 0 < share < 0.01
        held = sum(np.prod(where[path].shard_shape(leaf.shape)) * 4 for path, leaf in flat.items())
        whole = 4 * tree.count(seven_billion)
        assert held < 1.02 * whole / np.prod(sizes[1:]) + 2 * 2**20 + share * whole


def test_a_lost_rule_is_an_error_that_names_what_it_leaves_whole(seven_billion):
    """The embedding's rule is taken away by one that keeps it whole: 2.2 of 58 GB."""
    with pytest.raises(UserError, match=r"3\.\d% .* not divided .* composer/planner/embed,"):
        mesh, given = mesh_of(1, 8, 8, 1, 1), [("planner/embed$", ())]
        sharding.parameter_shardings(seven_billion, mesh, sharding_rules.SHARDING_RULES, given=given)


def test_what_belongs_to_a_parameter_lies_as_it_does():
    mesh = mesh_of(1, 4, 1, 1, 1)
    laid = sharding.parameter_shardings(SHAPES, mesh, RULES)
    assert laid["q"]["kernel"].spec == PartitionSpec("fsdp", None)
    state = {"mu": SHAPES, "count": jax.ShapeDtypeStruct((), jnp.int32), "coefficients": jnp.zeros(3)}
    found = sharding.opt_state_shardings(state, SHAPES, laid, mesh)
    assert found["mu"] == laid and found["count"].spec == found["coefficients"].spec == PartitionSpec()
    with pytest.raises(ValueError, match=r"other/table \(20, 2\) belongs to no parameter"):
        sharding.opt_state_shardings({"other": {"table": jnp.zeros((20, 2))}}, SHAPES, laid, mesh)


def test_a_shape_of_its_own_is_not_laid_as_the_parameter():
    laid = sharding.parameter_shardings(SHAPES, mesh_of(1, 4, 1, 1, 1), RULES)
    factored = {"q": {"kernel": SimpleNamespace(shape=(8,), ndim=1)}}
    found = sharding.opt_state_shardings(factored, SHAPES, laid, mesh_of(1, 4, 1, 1, 1))
    assert found["q"]["kernel"].spec == PartitionSpec()


SIZES = {"data": 1, "fsdp": 4, "fsdp_inner": 2, "tensor": 2, "sequence": 1}


def test_rows_are_divided_over_all_that_they_divide():
    both = PartitionSpec(("fsdp", "fsdp_inner"), None, None)
    assert sharding.activation_spec(SIZES, (16, 5, 6), "batch", "tokens", "width") == both
    assert sharding.activation_spec(SIZES, (4, 6), "batch", "heads") == PartitionSpec("fsdp", "tensor")
    assert sharding.activation_spec(SIZES, (3, 7), "batch", "heads") == PartitionSpec(None, None)


def test_every_rule_names_axes_of_the_mesh():
    for table in (sharding.ACTIVATION_RULES, sharding.PARAMETER_RULES):
        assert {axis for axes in table.values() for axis in axes} <= set(AXES)
        assert table.keys() == sharding.ACTIVATION_RULES.keys()


def test_a_misspelt_axis_is_named():
    with pytest.raises(ValueError, match="'bacth'; did you mean 'batch'"):
        sharding.activation_spec(SIZES, (3,), "bacth")
    with pytest.raises(ValueError, match="'bacth'; did you mean 'batch'"):
        sharding.constrain(jnp.zeros(3), "bacth")


def test_constrain_wants_a_name_for_every_dimension():
    with pytest.raises(ValueError, match="2 logical axes"):
        sharding.constrain(jnp.zeros((2, 3, 4)), "batch", "tokens")


def test_joined_and_split_again():
    parts = [jnp.arange(12.0).reshape(1, 6, 2), jnp.arange(8.0).reshape(1, 4, 2) + 50]
    whole = sharding.join_tokens(parts)
    np.testing.assert_array_equal(whole, np.concatenate(parts, 1))
    for part, again in zip(parts, sharding.split_tokens(whole, [6, 4]), strict=True):
        np.testing.assert_array_equal(part, again)
