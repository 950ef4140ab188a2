"""Where parameters lie: the first rule that finds a path, every axis of the mesh where it divides."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from macro.models import axes, variants
from macro.models.initial import initial
from macro.parallel import layout
from macro.parallel.mesh import AXES
from macro.parallel.rules import FSDP
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
    found = layout.axes_of(SHAPES, RULES, given=[("out/kernel$", (None, "width"))])
    assert found == {"out/kernel": (None, "width"), "q/bias": (None,), "q/kernel": ("width", "heads")}


@pytest.mark.parametrize(
    ("own", "given", "line"),
    [
        (RULES[:2], (), r"none covers out/kernel \(12, 8\)"),
        (RULES, [("k/kernel$", ("width", "heads"))], "'k/kernel\\$' matches none of the parameters out/kernel"),
        (RULES, [("q/kernel$", ("width", "hedas"))], "unknown logical axis 'hedas'; did you mean 'heads'"),
        (RULES, [("q/kernel$", ("width",))], r"has 1 axes, but q/kernel has shape \(8, 12\)"),
        (RULES, ["q/kernel"], "'q/kernel' must be .regex, axes."),
        (RULES, [("q(", ())], "'q.': "),
    ],
)
def test_mistakes_are_named(own, given, line):
    with pytest.raises(UserError, match=f"config.parallel.rules: .*{line}"):
        layout.axes_of(SHAPES, own, given)


@pytest.mark.parametrize(
    ("shape", "names", "sizes", "expected"),
    [
        ((28, 3584, 18944), ("layers", "width", "mlp"), (1, 16, 16, 1, 1), (None, ("fsdp", "fsdp_inner"), None)),
        # 1152 = 9 * 128 is no multiple of 256: half of the division goes to the other dimension.
        ((26, 1152, 1152), ("layers", "width", "heads"), (1, 16, 16, 1, 1), (None, "fsdp", "fsdp_inner")),
        ((28, 3584, 18944), ("layers", "width", "mlp"), (1, 4, 4, 4, 1), (None, ("fsdp", "fsdp_inner"), "tensor")),
        ((28, 3584, 512), ("layers", "width", "kv_heads"), (2, 4, 2, 1, 4), (None, (*FSDP, "sequence"), None)),
        ((7, 5), ("width", "mlp"), (1, 2, 2, 1, 1), (None, None)),
    ],
)  # fmt: skip
def test_every_axis_divides_the_first_dimension_that_it_can(shape, names, sizes, expected):
    assert layout.spec(shape, names, dict(zip(AXES, sizes, strict=True))) == PartitionSpec(*expected)


@pytest.mark.parametrize("sizes", [(1, 16, 16, 1, 1), (1, 8, 8, 1, 1), (1, 8, 4, 8, 1), (4, 4, 4, 1, 4)])
def test_the_model_of_seven_billion_is_divided_by_its_own_rules(sizes):
    shapes = jax.eval_shape(lambda: initial(jax.random.key(0), variants.decode("7B/1024")))
    laid = layout.shardings(shapes, mesh_of(*sizes), axes.RULES)
    flat, where = tree.flatten(shapes), tree.flatten(laid)
    share, _ = layout.unsharded(flat, where, mesh_of(*sizes))
    assert 0 < share < 0.01
    n = np.prod(sizes[1:])
    held = sum(np.prod(where[path].shard_shape(leaf.shape)) * 4 for path, leaf in flat.items())
    assert held < 1.02 * 4 * tree.count(shapes) / n + 2 * 2**20 + share * 4 * tree.count(shapes)


def test_a_lost_rule_is_an_error_that_names_what_it_leaves_whole():
    """The embedding's rule is taken away by one that keeps it whole: 2.2 of 58 GB."""
    shapes = jax.eval_shape(lambda: initial(jax.random.key(0), variants.decode("7B/1024")))
    with pytest.raises(UserError, match=r"3\.\d% .* not divided .* composer/planner/embed,"):
        layout.shardings(shapes, mesh_of(1, 8, 8, 1, 1), axes.RULES, given=[("planner/embed$", ())])


def test_what_belongs_to_a_parameter_lies_as_it_does():
    mesh = mesh_of(1, 4, 1, 1, 1)
    laid = layout.shardings(SHAPES, mesh, RULES)
    assert laid["q"]["kernel"].spec == PartitionSpec("fsdp", None)
    state = {"mu": SHAPES, "count": jax.ShapeDtypeStruct((), jnp.int32), "coefficients": jnp.zeros(3)}
    found = layout.following(state, SHAPES, laid, mesh)
    assert found["mu"] == laid and found["count"].spec == found["coefficients"].spec == PartitionSpec()
    with pytest.raises(ValueError, match=r"other/table \(20, 2\) belongs to no parameter"):
        layout.following({"other": {"table": jnp.zeros((20, 2))}}, SHAPES, laid, mesh)


def test_a_shape_of_its_own_is_not_laid_as_the_parameter():
    laid = layout.shardings(SHAPES, mesh_of(1, 4, 1, 1, 1), RULES)
    factored = {"q": {"kernel": SimpleNamespace(shape=(8,), ndim=1)}}
    found = layout.following(factored, SHAPES, laid, mesh_of(1, 4, 1, 1, 1))
    assert found["q"]["kernel"].spec == PartitionSpec()
