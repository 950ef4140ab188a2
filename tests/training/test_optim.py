"""Learning rates, decay on matrices only, the average's decay, and mistakes in config.optim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from macro.models.composer import Composer, dummy_batch
from macro.models.variants import config_from_name
from macro.training import optim
from macro.utils import tree
from macro.utils.errors import UserError


def test_cosine_rises_in_a_line_and_falls_to_zero():
    rate = optim.learning_rate(optim.OptimConfig(lr=2.0, warmup_steps=4), total_steps=24)
    assert np.allclose([rate(t) for t in range(5)], [0.4, 0.8, 1.2, 1.6, 2.0])
    assert np.allclose(rate(14), 1.0)
    assert np.allclose(rate(24), 0.0, atol=1e-6)
    assert np.all(np.diff([rate(t) for t in range(4, 25)]) < 0)


def test_constant_stays_at_the_peak():
    rate = optim.learning_rate(optim.OptimConfig(lr=2.0, warmup_steps=1, schedule="constant"), 10)
    assert [float(rate(t)) for t in (0, 1, 5, 10)] == [1.0, 2.0, 2.0, 2.0]


def test_warmup_longer_than_the_run_still_moves():
    rate = optim.learning_rate(optim.OptimConfig(lr=1.0, warmup_steps=1000), total_steps=3)
    assert float(rate(2)) == pytest.approx(0.75)


def test_only_matrices_decay_even_where_layers_are_stacked():
    params = {
        "embed": jnp.ones((7, 4)),
        "layers": {
            "q": {"kernel": jnp.ones((2, 4, 4)), "bias": jnp.ones((2, 4))},
            "norm": {"scale": jnp.ones((2, 4))},
        },
    }
    optimizer = optim.optimizer(
        optim.OptimConfig(lr=0.1, warmup_steps=0, weight_decay=0.5, schedule="constant"), 10
    )
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert np.allclose(updates["embed"], -0.05)
    assert np.allclose(updates["layers"]["q"]["kernel"], -0.05)
    assert np.all(updates["layers"]["q"]["bias"] == 0)
    assert np.all(updates["layers"]["norm"]["scale"] == 0)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_decay_on_the_real_parameters(name):
    """Without a gradient only matrices move: no bias, no norm's scale, whichever rule has them."""
    model = config_from_name("XXS/64", llm={"layers": 1}, vision={"layers": 1})
    shapes = jax.eval_shape(Composer(model).init, jax.random.key(0), *dummy_batch(model))["params"]
    params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes)
    config = optim.OptimConfig(lr=0.1, warmup_steps=0, weight_decay=0.5, schedule="constant", name=name)
    optimizer = optim.optimizer(config, 10)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(zero, optimizer.init(params), params)
    names = set()
    for path, update in tree.flatten(updates).items():
        names.add(path.rsplit("/", 1)[-1])
        np.testing.assert_allclose(update, 0.0 if path.endswith(("bias", "scale")) else -0.05, rtol=1e-6, err_msg=path)
    assert names == {"kernel", "bias", "scale", "embed", "head", "position_embedding", "binding"}


def test_no_clipping():
    for off in (0.0, None):
        optimizer = optim.optimizer(optim.OptimConfig(lr=0.1, warmup_steps=0, grad_clip_norm=off), 10)
        params = {"kernel": jnp.ones((3, 3))}
        _, state = optimizer.update({"kernel": jnp.full((3, 3), 7.0)}, optimizer.init(params), params)
        assert np.allclose(state[1][0].mu["kernel"], 0.7)


def test_clip_bounds_what_adam_sees():
    """Two gradients that differ only in length beyond the clip give the same state."""
    params = {"kernel": jnp.ones((3, 3))}
    optimizer = optim.optimizer(optim.OptimConfig(lr=0.1, warmup_steps=0, grad_clip_norm=1.0), 10)
    moments = []
    for length in (10.0, 1000.0):
        _, state = optimizer.update({"kernel": jnp.full((3, 3), length)}, optimizer.init(params), params)
        moments.append(state[1][0].mu["kernel"])
    assert np.allclose(moments[0], moments[1])
    assert np.allclose(jnp.linalg.norm(moments[0]) / 0.1, 1.0, rtol=1e-5)


def test_muon_turns_kernels_orthogonal_and_leaves_the_rest_to_adam():
    rng = np.random.default_rng(0)
    params = {
        "embed": jnp.zeros((9, 4)),
        "layers": {"q": {"kernel": jnp.zeros((2, 6, 4)), "bias": jnp.zeros((2, 4))}},
        "conv": {"kernel": jnp.zeros((3, 3, 2, 4))},
    }
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
    config = optim.OptimConfig(lr=0.1, warmup_steps=0, name="muon", schedule="constant", grad_clip_norm=0.0)
    optimizer = optim.optimizer(config, 10)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    kernels = [*updates["layers"]["q"]["kernel"], updates["conv"]["kernel"].reshape(18, 4)]
    for kernel in kernels:
        strengths = np.linalg.svd(kernel, compute_uv=False)
        # Newton-Schulz stops when all singular values are near 1 (0.7 to 1.2 of one another's scale).
        assert strengths.max() / strengths.min() < 2
        assert np.sqrt(np.mean(np.square(kernel))) == pytest.approx(0.1 * optim.MUON_RMS, rel=0.3)
    for update, grad in (
        (updates["embed"], grads["embed"]),
        (updates["layers"]["q"]["bias"], grads["layers"]["q"]["bias"]),
    ):
        # Adam's first step is the gradient's sign alone.
        assert np.allclose(update, -np.sign(grad) * np.abs(update).flat[0], rtol=1e-3)


def test_ema_decay_warms_up_to_its_limit():
    assert float(optim.ema_decay(0, 0.99)) == pytest.approx(0.1)
    assert float(optim.ema_decay(10**6, 0.99)) == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schedule": "cosin"}, "config.optim.schedule='cosin'"),
        ({"lr": 0.0}, "config.optim.lr"),
        ({"ema_decay": 1.0}, "config.optim.ema_decay"),
        ({"warmup": 3}, "did you mean 'warmup_steps'"),
    ],
)
def test_mistakes_are_named(changes, named):
    config = ConfigDict({"optim": {"lr": 0.1, "warmup_steps": 1} | changes})
    with pytest.raises(UserError, match=named):
        optim.optim_config(config)


def test_a_missing_key_is_named():
    with pytest.raises(UserError, match="'warmup_steps' is missing"):
        optim.optim_config(ConfigDict({"optim": {"lr": 0.1}}))
