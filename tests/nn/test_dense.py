"""`nn.dense` computes what `flax.linen.Dense` does, values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.nn.dense import dot_general


@pytest.mark.parametrize("inputs, outputs", [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("shape", [(6,), (2, 7)])
def test_values_and_gradients_are_those_of_a_plain_dense(inputs, outputs, shape):
    keys = jax.random.split(jax.random.key(inputs), 3)
    x, dy = jax.random.normal(keys[0], (*shape, inputs)), jax.random.normal(keys[1], (*shape, outputs))
    plain, ours = nn.Dense(outputs), nn.Dense(outputs, dot_general=dot_general)
    params = plain.init(keys[2], x)
    expected, back = jax.vjp(plain.apply, params, x)
    value, ours_back = jax.vjp(ours.apply, params, x)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    for got, want in zip(jax.tree.leaves(ours_back(dy)), jax.tree.leaves(back(dy)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_half_precision_stays_half():
    layer = nn.Dense(4, dtype=jnp.bfloat16, dot_general=dot_general)
    x = jnp.ones((2, 3), jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)
    gradient = jax.grad(lambda x: layer.apply(params, x).sum().astype(jnp.float32))(x)
    assert layer.apply(params, x).dtype == gradient.dtype == jnp.bfloat16


def test_other_products_are_refused():
    with pytest.raises(NotImplementedError, match="tokens times a matrix"):
        dot_general(jnp.ones((2, 3)), jnp.ones((2, 3)), (((0,), (0,)), ((), ())))
