"""`nn.layers.Dense` computes what `flax.linen.Dense` does, values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.nn.layers import Dense


@pytest.mark.parametrize("inputs, outputs", [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("shape", [(6,), (2, 7)])
def test_values_and_gradients_are_those_of_a_plain_dense(inputs, outputs, shape):
    keys = jax.random.split(jax.random.key(inputs), 3)
    x, dy = jax.random.normal(keys[0], (*shape, inputs)), jax.random.normal(keys[1], (*shape, outputs))
    plain, ours = nn.Dense(outputs), Dense(outputs)
    params = plain.init(keys[2], x)
    expected, back = jax.vjp(plain.apply, params, x)
    value, ours_back = jax.vjp(ours.apply, params, x)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    for got, want in zip(jax.tree.leaves(ours_back(dy)), jax.tree.leaves(back(dy)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_half_precision_stays_half():
    layer = Dense(4, dtype=jnp.bfloat16)
    x = jnp.ones((2, 3), jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)
    gradient = jax.grad(lambda x: layer.apply(params, x).sum().astype(jnp.float32))(x)
    assert layer.apply(params, x).dtype == gradient.dtype == jnp.bfloat16


def test_it_starts_as_a_plain_dense_does():
    x = jnp.ones((2, 3))
    for bias in (True, False):
        ours, plain = (layer(4, use_bias=bias).init(jax.random.key(1), x) for layer in (Dense, nn.Dense))
        jax.tree.map(np.testing.assert_array_equal, ours, plain)


def test_adapters_stand_beside_the_kernel():
    keys = jax.random.split(jax.random.key(0), 4)
    x, layer = jax.random.normal(keys[0], (2, 7, 5)), Dense(6)
    params = layer.init(keys[1], x)["params"]
    pair = {"a": jax.random.normal(keys[2], (5, 2)), "b": jax.random.normal(keys[3], (2, 6))}
    merged = params | {"kernel": params["kernel"] + pair["a"] @ pair["b"]}
    beside = layer.apply({"params": params, "lora": {"kernel": pair}}, x)
    np.testing.assert_allclose(beside, layer.apply({"params": merged}, x), rtol=1e-5, atol=1e-5)
