"""Casting parameters before a forward pass changes nothing that casting them within it does not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.models.composer import Composer, dummy_batch
from macro.models.params import cast_params
from macro.models.variants import config_from_name
from macro.utils import tree


@pytest.mark.slow
def test_bfloat16_results_are_the_same_to_the_bit():
    config = dataclasses.replace(config_from_name("XXS/64", llm={"vocab": 40}), dtype="bfloat16")
    batch = dummy_batch(config)
    params = Composer(config).init(jax.random.key(0), *batch)["params"]
    # The velocity's matrix begins at zero, where everything would agree.
    params["diffusion_head"]["latent_out"]["kernel"] += 0.1
    cast = cast_params(params, config)
    outs = [jax.jit(Composer(config).apply)({"params": p}, *batch) for p in (params, cast)]
    jax.tree.map(np.testing.assert_array_equal, *outs)
    assert float(jnp.max(jnp.abs(outs[0]["velocity"]))) > 0
    kinds = {path: leaf.dtype for path, leaf in tree.flatten(cast).items()}
    assert kinds["mot/blocks/und/q/kernel"] == kinds["mot/blocks/gen/q/bias"] == jnp.bfloat16
    for path in ("planner/embed", "planner/head", "diffusion_head/time/fc1/kernel", "binding", "mot/und_norm/scale"):
        assert kinds[path] == jnp.float32, path


def test_float32_is_left_alone():
    config = config_from_name("XXS/64", llm={"vocab": 40})
    params = {"planner": {"embed": jnp.ones((2, 3))}, "mot": {"kernel": jnp.ones(3)}}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(cast_params(params, config)))
