"""Every policy gives the same values and gradients; they differ in what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.kernels.attention.reference import MASK_FIELDS
from macro.models.variants import config_from_name
from macro.nn.layers import REMAT_POLICIES, rope_angles
from macro.nn.mot import MoT
from macro.utils.errors import UserError

SIZES = {"width": 16, "mlp": 24, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 8, "eps": 1e-6}


def gradient(policy):
    model = MoT(**SIZES, dtype="float32", remat=policy)
    order = jnp.arange(5)[None]
    meta = {
        name: order if name in ("token_index", "block_id") else jnp.zeros((1, 5), jnp.int32) for name in MASK_FIELDS
    }
    x = jax.random.normal(jax.random.key(1), (1, 5, 16))
    arguments = (None, (rope_angles(order, 8, 1e4), None), meta)
    call = lambda params, x: model.apply(params, x, arguments[0], *arguments[1:])[0]  # noqa: E731
    params = model.init(jax.random.key(0), x, arguments[0], *arguments[1:])
    loss = jax.value_and_grad(lambda params: jnp.sum(jnp.sin(call(params, x))))
    return loss(params), str(jax.make_jaxpr(loss)(params))


@pytest.fixture(scope="module")
def plain():
    return gradient("none")


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_policies_agree(plain, policy):
    (expected, program), (found, other) = plain, gradient(policy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), expected, found)
    assert "remat" not in program.replace("rematted", "") and "remat" in other


def test_an_unknown_policy_is_named():
    with pytest.raises(UserError, match="model.remat='some': choose one of none, full, attention, dots"):
        config_from_name("XXS/64", remat="some")
