"""Plan and draw together: `w1 * L1 + w2 * L2` over one packed batch (MUSIC, section 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from macro.models import variants, weights
from macro.models.composer import Composer
from macro.models.vae import VAE, latent_table
from macro.models.variants import ModelConfig
from macro.objectives.draw import draw_losses, noised
from macro.objectives.plan import plan_losses
from macro.utils.errors import UserError

# The VAE is never trained together with the composer.
FROZEN = ("vae/.*",)


def model_config(config) -> ModelConfig:
    """The model that an experiment's configuration names (`config.model`)."""
    fields = config.model.to_dict()
    return variants.decode(fields.pop("variant"), **fields)


def init(key: Array, config) -> dict:
    """Parameters `{"composer", "vae"}`: random, or read from the file that `config.init_from` names for a part.

    Raises:
        UserError: a part that does not exist, a file without it, or with other sizes than `config.model`.
    """
    model = model_config(config)
    composer_key, vae_key = jax.random.split(key)
    params = {
        "composer": Composer(model).init(composer_key, *_smallest_batch(model))["params"],
        "vae": VAE(model.vae).init(vae_key, jnp.zeros((1, 32, 32, 3)), vae_key)["params"],
    }
    for part, path in config.init_from.items():
        if part not in params:
            raise UserError(f"config.init_from.{part}: no such part; there are {', '.join(params)}")
        loaded, theirs, _ = weights.load(path)
        if part not in loaded:
            raise UserError(f"{path}: holds no {part}; config.init_from.{part} needs a file with one")
        found, wanted = _shaped_by(theirs, part), _shaped_by(model, part)
        if found != wanted:
            raise UserError(f"{path}: its {part} is {found}, but config.model asks for {wanted}")
        params[part] = jax.tree.map(jnp.asarray, loaded[part])
    return params


def _shaped_by(model: ModelConfig, part: str):
    """What fixes the shapes and meaning of one top-level part of the parameters."""
    if part == "vae":
        # Scale and shift belong to whoever trains on the latents, not to the autoencoder.
        return dataclasses.replace(model.vae, scale=1.0, shift=0.0)
    return model.llm, model.vision, model.latent_patch, model.latent_side, model.subjects, model.binding


def loss(params: Mapping, batch: Mapping, key: Array, config) -> tuple[Array, dict[str, Array]]:
    """The joint loss and its parts.

    Args:
        params: `{"composer", "vae"}`.
        batch: packed streams and pixels.
        key: noise of this step.
        config: `loss.plan` and `loss.draw` are the weights; `tasks` names the tasks to report apart.

    Returns:
        (scalar loss, metrics): `plan`, `draw`, and both per task; a task without tokens reports NaN.
    """
    model = model_config(config)
    text, latent = batch["text"], batch["latent"]
    table = latent_table(params["vae"], batch["pixels"], model)
    x_t, t, target = noised(table, latent, key, model)
    composer = Composer(model)
    out = composer.apply({"params": params["composer"]}, batch, x_t, t)
    logits = composer.apply({"params": params["composer"]}, out["text"], method=Composer.logits)
    nats, plan_weight = plan_losses(logits, text)
    error, draw_weight = draw_losses(out["velocity"], target, latent)
    metrics = {"plan": _mean(nats, plan_weight), "draw": _mean(error, draw_weight)}
    total = config.loss.plan * metrics["plan"] + config.loss.draw * metrics["draw"]
    for number, task in enumerate(config.tasks):
        metrics[f"plan/{task}"] = _mean(nats, plan_weight * (text["task_id"] == number), empty=jnp.nan)
        metrics[f"draw/{task}"] = _mean(error, draw_weight * (latent["task_id"] == number), empty=jnp.nan)
    return total, metrics


def _mean(values: Array, weight: Array, empty: float = 0.0) -> Array:
    """Weighted mean over all tokens of the batch; `empty` where nothing has weight."""
    total = jnp.sum(weight)
    return jnp.where(total > 0, jnp.sum(values * weight) / jnp.maximum(total, 1e-6), empty)


def _smallest_batch(model: ModelConfig) -> tuple[dict, Array, Array]:
    """One token per stream: enough to shape every parameter."""
    meta = {name: jnp.zeros((1, 1), jnp.int32) for name in ("sample", "order", "span", "mode", "rope")}
    patch = jnp.zeros((1, 1, model.vision.patch**2 * 3))
    place = jnp.zeros((1, 1), jnp.int32)
    streams = {
        "text": {**meta, "ids": place},
        "vision": {**meta, "patches": patch, "position": place, "subject": place},
        "latent": {**meta, "position": place, "subjects": jnp.zeros((1, 1, model.subjects + 1))},
    }
    return streams, jnp.zeros((1, 1, model.latent_channels)), jnp.zeros((1, 1))
