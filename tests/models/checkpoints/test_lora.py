"""Adapters merged into parameters: the sum, its type, and adapters of another model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.models.checkpoints.lora import merge
from macro.utils import tree
from macro.utils.errors import UserError


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


PARAMS = {
    "blocks": {"q": {"kernel": normal(2, 6, 5), "bias": normal(2, 5)}, "norm": {"scale": normal(2, 6)}},
    "out": {"kernel": normal(6, 4), "bias": normal(4)},
}
ADAPTERS = {
    "blocks": {"q": {"kernel": {"a": normal(2, 6, 3, seed=1), "b": normal(2, 3, 5, seed=1)}}},
    "out": {"kernel": {"a": normal(6, 3, seed=1), "b": normal(3, 4, seed=1)}},
}


def test_the_sum_is_the_kernel_beside_its_adapters():
    """x (W + s A B) = x W + s (x A) B, for each stacked layer and for a kernel of its own; numpy's and JAX's arrays."""
    x = normal(7, 6, seed=3)
    q, out = ADAPTERS["blocks"]["q"]["kernel"], ADAPTERS["out"]["kernel"]
    for params in (PARAMS, jax.tree.map(jnp.asarray, PARAMS)):
        whole = merge(params, ADAPTERS, 2.0)
        for layer in range(2):
            beside = x @ PARAMS["blocks"]["q"]["kernel"][layer] + 2.0 * (x @ q["a"][layer]) @ q["b"][layer]
            np.testing.assert_allclose(x @ whole["blocks"]["q"]["kernel"][layer], beside, atol=1e-4)
        beside = x @ PARAMS["out"]["kernel"] + 2.0 * (x @ out["a"]) @ out["b"]
        np.testing.assert_allclose(x @ whole["out"]["kernel"], beside, atol=1e-4)
        assert {path for path, leaf in tree.flatten(whole).items() if leaf is not tree.flatten(params)[path]} == {
            "blocks/q/kernel", "out/kernel",
        }  # fmt: skip


def test_a_narrow_kernel_stays_narrow():
    halved = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(merge(halved, ADAPTERS, 2.0)))


def test_adapters_of_another_model_are_refused():
    changes = [
        (lambda flat: flat.pop("out/kernel/b"), r"out/kernel do not fit: kernel \(6, 4\), a \(6, 3\), b None"),
        (lambda flat: flat.update({"out/kernel/a": normal(6, 2)}), r"a \(6, 2\), b \(3, 4\)"),
        (lambda flat: flat.update({"in/kernel/a": 0 * flat["out/kernel/a"]}), "in/kernel do not fit: kernel None"),
        (lambda flat: flat.update({"blocks/q/kernel/b": normal(3, 3, 5)}), r"blocks/q/kernel.*b \(3, 3, 5\)"),
    ]
    for change, named in changes:
        flat = tree.flatten(ADAPTERS)
        change(flat)
        with pytest.raises(UserError, match=named):
            merge(PARAMS, tree.unflatten(flat), 2.0)
