"""The joint loss: weights of its parts, tasks reported apart, noise from the key, parts read from files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from macro.models.checkpoints import weights
from macro.objectives import joint, parts
from macro.objectives.flow import flow_losses
from macro.objectives.text import text_losses
from macro.utils.errors import UserError

MODEL = {"variant": "XXS/64", "llm": {"vocab": 40, "layers": 1}}
LOSS = {"ce_weight": 0.5, "mse_weight": 2.0}
CONFIG = ConfigDict({"model": MODEL, "loss": LOSS, "tasks": ("a", "b"), "init_from": {}})


def batch() -> dict:
    """One row: four text tokens of task a, one image, four noised tokens of task a; no token of task b."""
    rng = np.random.default_rng(0)
    n, zeros = 4, np.zeros((1, 4), np.int32)
    meta = {
        "segment_ids": zeros,
        "token_index": np.arange(4, dtype=np.int32)[None],
        "block_id": zeros,
        "mask_mode": zeros,
        "position_ids": zeros,
    }
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
    whole = jax.tree.map(jnp.asarray, batch())
    totals = joint.totals(whole, CONFIG)
    return jax.jit(lambda key: joint.loss(params, whole, key, CONFIG, totals))


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
    nats, weight = text_losses(lambda x: x, logits, streams["text"], 40)
    np.testing.assert_allclose(nats[0, [0, 2, 3]], np.log(40), rtol=1e-6)
    np.testing.assert_array_equal(weight, [[1, 0, 1, 1]])
    error, weight = flow_losses(jnp.ones((1, 4, 2)), jnp.zeros((1, 4, 2)), streams["latent"])
    np.testing.assert_array_equal(error, np.ones((1, 4)))
    np.testing.assert_array_equal(weight, [[1, 1, 0, 1]])


def test_parts_come_from_the_files_named(tmp_path, params):
    path = tmp_path / "vae.safetensors"
    other_scale = parts.model_config(ConfigDict({"model": MODEL | {"vae": {"scale": 3.0}}}))
    moved = jax.tree.map(lambda x: np.asarray(x) + 1, params["vae"])
    weights.save(path, {"vae": moved}, other_scale, {})
    config = ConfigDict(CONFIG.to_dict() | {"init_from": {"vae": str(path)}})
    assert parts.start_files(config, params) == {"vae": str(path)}
    loaded = read("vae", path, config, params)
    jax.tree.map(np.testing.assert_array_equal, loaded, moved)


def read(part, path, config, params):
    everywhere = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), params)
    return parts.read_part(part, str(path), config, params[part], everywhere[part])


@pytest.mark.parametrize(
    ("part", "model", "message"),
    [
        ("composer", MODEL, "holds no composer"),
        ("vae", {**MODEL, "vae": {"channels": 64}}, "config.model asks for"),
    ],
)
def test_wrong_files_are_named(tmp_path, params, part, model, message):
    path = tmp_path / "vae.safetensors"
    weights.save(path, {"vae": params["vae"]}, parts.model_config(CONFIG), {})
    config = ConfigDict(CONFIG.to_dict() | {"model": model, "init_from": {part: str(path)}})
    with pytest.raises(UserError, match=message):
        read(part, path, config, params)


def test_a_part_that_does_not_exist_is_named(params):
    config = ConfigDict(CONFIG.to_dict() | {"init_from": {"decoder": "x.safetensors"}})
    with pytest.raises(UserError, match="config.init_from.decoder: no such part; there are composer, vae"):
        parts.start_files(config, params)


def test_a_file_with_other_shapes_is_named(tmp_path, params):
    path = tmp_path / "vae.safetensors"
    cut = {"encoder": params["vae"]["encoder"]}
    weights.save(path, {"vae": cut}, parts.model_config(CONFIG), {})
    with pytest.raises(UserError, match="its vae has no decoder/.* of shape"):
        read("vae", path, CONFIG, params)


def test_shares_of_a_batch_add_up_to_it(params):
    """Two rows at once, and one after the other with the totals of both."""
    one = jax.tree.map(jnp.asarray, batch())
    one["latent"]["t_raw"] = jnp.full((1, 4), -jnp.inf)  # no noise, which is drawn for the rows of a part together
    two = jax.tree.map(lambda x: x[:, ::-1] if x.ndim == 2 else x, one)
    two["text"]["labels"] = jnp.array([[5, 3, -1, -1]])
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), one, two)
    totals = joint.totals(both, CONFIG)
    score = jax.jit(lambda rows: joint.loss(params, rows, jax.random.key(0), CONFIG, totals)[1]["plan"])
    np.testing.assert_allclose(score(one) + score(two), score(both), rtol=1e-5)


def test_logits_made_in_parts_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    hidden, head = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 12, 8), (8, 40)))
    labels = jnp.asarray(rng.integers(-1, 40, (2, 12)))
    text = {"labels": labels, "weights": jnp.ones((2, 12))}

    def total(hidden, head):
        return jnp.sum(jnp.square(text_losses(lambda x: x @ head, hidden, text, 40)[0]))

    whole = jax.value_and_grad(total, (0, 1))(hidden, head)
    monkeypatch.setattr("macro.objectives.text.LOGITS", 3 * 40)
    assert "scan" in str(jax.make_jaxpr(total)(hidden, head))
    parts = jax.value_and_grad(total, (0, 1))(hidden, head)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
