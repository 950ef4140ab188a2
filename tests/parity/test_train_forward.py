"""The recorded training step: every hidden state that leaves the model, logits, velocity and both losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.bagel import FOLDER, assert_close, needs_goldens
from parity.llm import composer_params, model_config, train_streams

from macro.diffusion.times import logit_normal
from macro.models.composer import Composer, smallest_batch
from macro.models.vae import normalise, patchify
from macro.objectives.draw import draw_losses
from macro.objectives.plan import plan_losses
from macro.sentence.sight import visible

pytestmark = needs_goldens


def test_weights_fit_the_module():
    config = model_config()
    ours = jax.eval_shape(Composer(config).init, jax.random.key(0), *smallest_batch(config))["params"]
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, composer_params())


@pytest.fixture(scope="module")
def run():
    config = model_config()
    inputs, golden = np.load(FOLDER / "train_inputs.npz"), np.load(FOLDER / "train_outputs.npz")
    streams = train_streams(inputs)
    mean, logvar = np.split(np.moveaxis(golden["vae_moments"], 1, -1), 2, axis=-1)
    posterior = mean + np.exp(0.5 * logvar) * np.moveaxis(golden["vae_noise"], 1, -1)
    latents = normalise(jnp.asarray(posterior), config.vae)
    shapes = inputs["patchified_vae_latent_shapes"]
    patch = config.latent_patch
    tokens = [
        patchify(jnp.asarray(z[None, : h * patch, : w * patch]), patch)[0]
        for z, (h, w) in zip(latents, shapes, strict=True)
    ]
    x_0 = np.concatenate(tokens)[None]
    t = logit_normal(streams["latent"]["t_raw"], config.timestep_shift)
    eps = golden["flow_noise"][None]
    x_t = (1 - t[..., None]) * x_0 + t[..., None] * eps
    model = Composer(config)
    with jax.default_matmul_precision("highest"):
        streams = jax.tree.map(jnp.asarray, streams)
        out = model.apply({"params": composer_params()}, streams, jnp.asarray(x_t), jnp.asarray(t))
        logits = model.apply({"params": composer_params()}, out["text"], method=Composer.logits)
    return inputs, golden, streams, eps - x_0, out, logits


def test_text_hidden_states(run):
    inputs, golden, _, _, out, _ = run
    assert_close(out["text"][0], golden["last_hidden"][inputs["packed_text_indexes"]], "last_hidden")


def test_logits_and_cross_entropy(run):
    _, golden, streams, _, _, logits = run
    labelled = streams["text"]["labels"][0] >= 0
    assert_close(logits[0][labelled], golden["logits"], "logits")
    nats, weight = plan_losses(logits, streams["text"])
    assert_close(nats[0][labelled], golden["ce"], "ce")
    assert_close(jnp.sum(nats * weight) / jnp.sum(weight), golden["loss_ce"], "loss_ce")


def test_velocity_and_flow_loss(run):
    _, golden, streams, target, out, _ = run
    learnt = streams["latent"]["loss"][0]
    assert_close(out["velocity"][0][learnt], golden["llm2vae"], "velocity")
    assert_close(np.square(out["velocity"] - target)[0][learnt], golden["mse"], "mse")
    error, weight = draw_losses(out["velocity"], jnp.asarray(target), streams["latent"])
    assert_close(jnp.sum(error * weight) / jnp.sum(weight), golden["loss_mse"], "loss_mse")


def test_rule_of_sight_is_the_recorded_mask(run):
    inputs, _, streams, *_ = run
    joined = {
        name: np.concatenate([np.asarray(streams[part][name][0]) for part in ("text", "vision", "latent")])
        for name in ("sample", "order", "span", "mode")
    }
    by_order = {name: values[np.argsort(joined["order"])] for name, values in joined.items()}
    ours = visible(
        {name: values[:, None] for name, values in by_order.items()},
        {name: values[None, :] for name, values in by_order.items()},
    )
    start = 0
    for number, length in enumerate(inputs["sample_lens"]):
        block = ours[start : start + length, start : start + length]
        np.testing.assert_array_equal(block, inputs[f"attn_mask_{number}"])
        start += length
