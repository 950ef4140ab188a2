"""The joint loss: weights of its parts, tasks reported apart, noise from the key, parts read from files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from macro.models import weights
from macro.objectives import joint, parts
from macro.objectives.draw import draw_losses
from macro.objectives.plan import plan_losses
from macro.utils.errors import UserError

MODEL = {"variant": "XXS/64", "llm": {"vocab": 40, "layers": 1}}
CONFIG = ConfigDict({"model": MODEL, "loss": {"plan": 0.5, "draw": 2.0}, "tasks": ("a", "b"), "init_from": {}})


def batch() -> dict:
    """One row: four text tokens of task a, one picture, four noised tokens of task a; no token of task b."""
    rng = np.random.default_rng(0)
    n, zeros = 4, np.zeros((1, 4), np.int32)
    meta = {"sample": zeros, "order": np.arange(4, dtype=np.int32)[None], "span": zeros, "mode": zeros, "rope": zeros}
    return {
        "text": {
            **meta, "ids": zeros + 3, "labels": np.array([[5, -1, 7, 2]], np.int32),
            "weights": np.ones((1, n), np.float32), "task_id": zeros,
        },
        "vision": {
            **meta, "patches": rng.normal(size=(1, n, 768)).astype(np.float32), "position": zeros, "subject": zeros,
        },
        "latent": {
            **meta, "source": np.array([[0, 1, 2, 3]], np.int32), "position": zeros, "image": zeros,
            "t_raw": np.array([[0.0, 1.0, -np.inf, 0.5]], np.float32), "task_id": zeros,
            "loss": np.array([[True, True, False, True]]), "subjects": np.zeros((1, n, 13), np.float32),
        },
        "pixels": {"64x64": rng.integers(0, 255, (1, 1, 64, 64, 3), np.uint8)},
    }  # fmt: skip


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: joint.init(key, CONFIG))(jax.random.key(0))


@pytest.fixture(scope="module")
def loss(params):
    return jax.jit(lambda key: joint.loss(params, jax.tree.map(jnp.asarray, batch()), key, CONFIG))


def test_the_loss_is_the_weighted_sum_and_tasks_stand_apart(loss):
    total, metrics = loss(jax.random.key(1))
    assert float(total) == pytest.approx(0.5 * float(metrics["plan"]) + 2.0 * float(metrics["draw"]), rel=1e-6)
    assert metrics["plan/a"] == metrics["plan"] and metrics["draw/a"] == metrics["draw"]
    assert np.isnan(metrics["plan/b"]) and np.isnan(metrics["draw/b"])
    # An untrained model predicts nothing: near-uniform words, velocity 0.
    assert float(metrics["plan"]) == pytest.approx(np.log(40), rel=0.2)


def test_noise_follows_from_the_key(loss):
    first, again, other = (loss(jax.random.key(k))[1]["draw"] for k in (1, 1, 2))
    assert first == again != other


def test_only_labelled_and_noised_tokens_count():
    streams = jax.tree.map(jnp.asarray, batch())
    logits = jnp.zeros((1, 4, 40)).at[0, 1].set(jnp.arange(40.0))
    nats, weight = plan_losses(logits, streams["text"])
    np.testing.assert_allclose(nats[0, [0, 2, 3]], np.log(40), rtol=1e-6)
    np.testing.assert_array_equal(weight, [[1, 0, 1, 1]])
    error, weight = draw_losses(jnp.ones((1, 4, 2)), jnp.zeros((1, 4, 2)), streams["latent"])
    np.testing.assert_array_equal(error, np.ones((1, 4)))
    np.testing.assert_array_equal(weight, [[1, 1, 0, 1]])


def test_parts_come_from_the_files_named(tmp_path, params):
    path = tmp_path / "vae.safetensors"
    other_scale = parts.model_config(ConfigDict({"model": MODEL | {"vae": {"scale": 3.0}}}))
    moved = jax.tree.map(lambda x: np.asarray(x) + 1, params["vae"])
    weights.save(path, {"vae": moved}, other_scale, {})
    config = ConfigDict(CONFIG.to_dict() | {"init_from": {"vae": str(path)}})
    loaded = jax.jit(lambda key: joint.init(key, config))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, loaded["vae"], moved)
    jax.tree.map(np.testing.assert_array_equal, loaded["composer"], params["composer"])


@pytest.mark.parametrize(
    ("part", "model", "message"),
    [
        ("composer", MODEL, "holds no composer"),
        ("decoder", MODEL, "no such part"),
        ("vae", {**MODEL, "vae": {"channels": 64}}, "config.model asks for"),
    ],
)
def test_wrong_files_are_named(tmp_path, params, part, model, message):
    path = tmp_path / "vae.safetensors"
    weights.save(path, {"vae": params["vae"]}, parts.model_config(CONFIG), {})
    config = ConfigDict(CONFIG.to_dict() | {"model": model, "init_from": {part: str(path)}})
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda key: joint.init(key, config), jax.random.key(0))
