"""The recorded training step: every layer, logits, velocity, both losses, and every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
from parity.checks.packing import MODES
from parity.golden import FIXED, Golden, picked

from macro.diffusion import flow
from macro.diffusion.flow import logit_normal
from macro.models.composer import Composer, dummy_batch
from macro.models.vae import normalise, patchify
from macro.models.variants import ModelConfig
from macro.objectives.flow import flow_losses
from macro.objectives.text import text_losses
from macro.sentence.attention_mask import mask_mod


def streams(inputs: dict) -> dict:
    """The recorded packed batch as one row of our three streams."""
    length = int(inputs["sequence_length"])
    samples, splits = inputs["sample_lens"], inputs["split_lens"]
    modes = [MODES[name] for name in inputs["attn_modes"]]
    whole = {
        "segment_ids": np.repeat(np.arange(len(samples)), samples),
        "token_index": np.arange(length),
        "block_id": np.repeat(np.arange(len(splits)), splits)[:length],
        "mask_mode": np.repeat(modes, splits)[:length],
        "position_ids": inputs["packed_position_ids"],
    }

    def at(indexes, **fields):
        meta = {name: values[indexes] for name, values in whole.items()}
        return {name: np.asarray(values)[None].astype(np.int32) for name, values in {**meta, **fields}.items()}

    latent_index, vision_index = inputs["packed_vae_token_indexes"], inputs["packed_vit_token_indexes"]
    vision = at(vision_index, position=inputs["packed_vit_position_ids"], subject=np.zeros(len(vision_index)))
    vision["patches"] = inputs["packed_vit_tokens"][None]
    latent = at(latent_index, position=inputs["packed_latent_position_ids"])
    latent["t_raw"] = inputs["packed_timesteps"][None].astype(np.float32)
    latent["loss"] = np.isin(latent_index, inputs["mse_loss_indexes"])[None]
    labels, weights = np.full(length, -1), np.zeros(length)
    labels[inputs["ce_loss_indexes"]] = inputs["packed_label_ids"]
    weights[inputs["ce_loss_indexes"]] = inputs["ce_loss_weights"]
    text_index = inputs["packed_text_indexes"]
    text = at(text_index, ids=inputs["packed_text_ids"], labels=labels[text_index])
    text["weights"] = np.ones(text["ids"].shape, np.float32)
    text["reweighted"] = weights[text_index][None].astype(np.float32)
    return {"text": text, "vision": vision, "latent": latent}


def _noised(golden: Golden, latent: dict) -> tuple:
    """(x_t, t, target velocity) of the recorded batch, from its recorded moments and noises."""
    config, recorded = golden.model, golden.load("train_outputs")
    mean, logvar = np.split(np.moveaxis(recorded["vae_moments"], 1, -1), 2, axis=-1)
    posterior = mean + np.exp(0.5 * logvar) * np.moveaxis(recorded["vae_noise"], 1, -1)
    latents, p = normalise(jnp.asarray(posterior), config.vae), config.latent_patch
    shapes = golden.load("train_inputs")["patchified_vae_latent_shapes"]
    tokens = [
        patchify(z[None, : h * p, : w * p], p)[0] for z, (h, w) in zip(latents, shapes.tolist(), strict=True)
    ]
    x_0 = jnp.concatenate(tokens)[None]
    eps = jnp.asarray(recorded["flow_noise"])[None]
    t = logit_normal(jnp.asarray(latent["t_raw"]), config.timestep_shift)
    return flow.interpolate(x_0, eps, t), t, flow.velocity(x_0, eps)


def _mean(values, weight):
    return jnp.sum(values * weight) / jnp.sum(weight)


def _losses(params: dict, batch: dict, noised: tuple, config: ModelConfig):
    """ce + mse, and what they were made of; the intermediate values of all layers among it."""
    x_t, t, target = noised
    model = Composer(config)
    out, state = model.apply(
        {"params": params}, batch, x_t, t, capture_intermediates=True, mutable=["intermediates"]
    )
    logits = model.apply({"params": params}, out["text"], method=Composer.logits)
    nats, weight = text_losses(lambda x: x, logits, batch["text"], logits.shape[-1])
    reweighted = text_losses(
        lambda x: x, logits, batch["text"] | {"weights": batch["text"]["reweighted"]}, logits.shape[-1]
    )
    error, drawn = flow_losses(out["velocity"], target, batch["latent"])
    made = {
        "out": out,
        "logits": logits,
        "nats": nats,
        "squares": jnp.square(out["velocity"] - target),
        "loss_ce": _mean(nats, weight),
        "loss_ce_reweighted": _mean(*reweighted),
        "loss_mse": _mean(error, drawn),
        "state": state["intermediates"],
    }
    made["loss_total"] = made["loss_ce"] + made["loss_mse"]
    return made["loss_total"], made


_step = jax.jit(jax.value_and_grad(_losses, has_aux=True), static_argnames="config")


def run(golden: Golden) -> tuple[dict, dict, dict]:
    """(batch, what the step made, gradients) of the recorded training step."""

    def make():
        batch = jax.tree.map(jnp.asarray, streams(golden.load("train_inputs")))
        noised = _noised(golden, batch["latent"])
        (_, made), gradients = _step(golden.composer, batch, noised, config=golden.model)
        return batch, made, gradients

    return golden.once("training step", make)


def check_weights_fit(golden: Golden):
    config = golden.model
    ours = jax.eval_shape(Composer(config).init, jax.random.key(0), *dummy_batch(config))["params"]
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, golden.composer)


def check_sight(golden: Golden):
    inputs = golden.load("train_inputs")
    batch = streams(inputs)
    joined = {
        name: np.concatenate([batch[part][name][0] for part in ("text", "vision", "latent")])
        for name in ("segment_ids", "token_index", "block_id", "mask_mode")
    }
    by_order = {name: values[np.argsort(joined["token_index"])] for name, values in joined.items()}
    ours = mask_mod(
        {name: values[:, None] for name, values in by_order.items()},
        {name: values[None, :] for name, values in by_order.items()},
    )
    start = 0
    for number, length in enumerate(inputs["sample_lens"]):
        block = ours[start : start + length, start : start + length]
        np.testing.assert_array_equal(block, inputs[f"attn_mask_{number}"])
        start += length


def check_embeddings(golden: Golden):
    recorded = golden.load("train_outputs")
    head = run(golden)[1]["state"]["diffusion_head"]
    golden.close(head["time"]["__call__"][0][0], recorded["time_embed"], "time_embed")
    golden.close(head["latent_in"]["__call__"][0][0], recorded["vae2llm"], "vae2llm")
    seen = run(golden)[1]["state"]["planner"]["connector"]["__call__"][0]
    golden.close(seen[0], recorded["connector_out"], "connector_out in the step")


def check_every_layer(golden: Golden):
    batch, made, _ = run(golden)
    recorded, state = golden.load("train_outputs"), made["state"]["mot"]
    orders = np.concatenate([batch[part]["token_index"][0] for part in ("text", "vision", "latent")])

    def in_order(und, gen) -> np.ndarray:
        return np.concatenate([und[0], gen[0]])[np.argsort(orders)]

    (und, gen), _ = state["blocks"]["__call__"][0]
    attended = [state["blocks"][expert]["o"]["__call__"][0] for expert in ("und", "gen")]
    assert len(und) == golden.model.llm.layers
    for layer in range(len(und)):
        golden.close(
            in_order(attended[0][layer], attended[1][layer]), recorded[f"layer{layer}_attn"], f"layer{layer}_attn"
        )
        golden.close(in_order(und[layer], gen[layer]), recorded[f"layer{layer}"], f"layer{layer}")
    normed = [state[f"{expert}_norm"]["__call__"][0] for expert in ("und", "gen")]
    golden.close(in_order(*normed), recorded["last_hidden"], "last_hidden")


def check_logits_and_cross_entropy(golden: Golden):
    batch, made, _ = run(golden)
    recorded, labelled = golden.load("train_outputs"), np.asarray(batch["text"]["labels"][0]) >= 0
    golden.close(made["logits"][0][labelled], recorded["logits"], "logits")
    golden.close(made["nats"][0][labelled], recorded["ce"], "ce")


def check_velocity(golden: Golden):
    batch, made, _ = run(golden)
    recorded, learnt = golden.load("train_outputs"), np.asarray(batch["latent"]["loss"][0])
    golden.close(made["out"]["velocity"][0][learnt], recorded["llm2vae"], "velocity (llm2vae)")
    golden.close(made["squares"][0][learnt], recorded["mse"], "mse")


def check_losses_and_reweighting(golden: Golden):
    recorded, made = golden.load("train_outputs"), run(golden)[1]
    for name in ("loss_ce", "loss_ce_reweighted", "loss_mse", "loss_total"):
        golden.close(made[name], recorded[name], name)


def check_gradients_are_of_every_weight(golden: Golden):
    assert set(golden.load("train_grads")) == set(golden.tensors) - set(FIXED)


def check_every_gradient(golden: Golden):
    recorded, gradients = golden.load("train_grads"), run(golden)[2]
    for key, value in recorded.items():
        scale = None
        if key.endswith("self_attn.k_proj.bias") and key.startswith("vit_model"):
            # It moves all scores of a query alike, so softmax forgets it: the true gradient is 0, and the record
            # holds rounding. What is small is then said by the queries' bias, which has the same units.
            scale = np.abs(recorded[key.replace("k_proj", "q_proj")]).max()
        golden.close(picked(key, gradients), value, f"gradient of {key}", scale)
