"""The joint loss of plan and image: `w1 * L1 + w2 * L2` over one packed batch (MUSIC, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from macro.models import sharding_rules
from macro.models.composer import Composer
from macro.models.params import cast_params, init_params
from macro.models.token_selection import MAX_TRAINING_IMAGES, TrainingSelection, training_selection
from macro.models.vae import encode_images
from macro.nn.layers import LORA
from macro.objectives.flow import add_noise, flow_losses, flow_weights
from macro.objectives.parts import model_config
from macro.objectives.text import text_losses, text_weights

# The VAE is never trained together with the composer.
FROZEN = ("vae/.*",)
AXES = sharding_rules.SHARDING_RULES


def init(key: Array, config) -> dict:
    """Random parameters `{"composer", "vae"}`."""
    return init_params(key, model_config(config))


def cast_frozen(params: Mapping, config) -> dict:
    """Parameters cast to their compute type, which changes no result for those that are not trained."""
    return {**params, "composer": cast_params(params["composer"], model_config(config))}


def totals(batch: Mapping, config) -> dict[str, Array]:
    """The total weight of the tokens in each mean of `loss`."""
    text, latent = batch["text"], batch["latent"]
    plan, draw = text_weights(text), flow_weights(latent)
    weights = {"plan": jnp.sum(plan), "draw": jnp.sum(draw)}
    for number, task in enumerate(config.tasks):
        weights[f"plan/{task}"] = jnp.sum(plan * (text["task_id"] == number))
        weights[f"draw/{task}"] = jnp.sum(draw * (latent["task_id"] == number))
    return weights


def loss(
    params: Mapping, batch: Mapping, key: Array, config, totals: Mapping[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """The joint loss and its terms; those of the parts of a batch sum up to those of the batch.

    Args:
        params: `{"composer", "vae"}`, and under "lora" the adapters, if any (`macro/nn/layers.py`).
        batch: packed streams and pixels.
        key: for the noise of this step.
        config: `loss.ce_weight` and `loss.mse_weight` are the weights; `tasks` names the tasks to report separately;
            `token_selection` selects the image tokens that the later layers attend to.
        totals: from `totals`, for the whole batch even if `batch` is a part of it.

    Returns:
        (scalar loss, metrics): `plan`, `draw`, and both per task; a task without tokens reports NaN.
    """
    model = model_config(config)
    text, latent = batch["text"], batch["latent"]
    table = encode_images(params["vae"], batch["pixels"], model)
    x_t, t, target = add_noise(table, latent, key, model)
    variables = {"params": cast_params(params["composer"], model)}
    if LORA in params:
        variables[LORA] = params[LORA]["composer"]
    apply = partial(Composer(model).apply, variables)
    out = apply(batch, x_t, t, _token_selection(config, key, text["ids"].shape[0]))
    nats, plan_weight = text_losses(partial(apply, method=Composer.logits), out["text"], text, model.llm.vocab)
    error, draw_weight = flow_losses(out["velocity"], target, latent)
    metrics = {
        "plan": _mean(nats, plan_weight, totals["plan"]),
        "draw": _mean(error, draw_weight, totals["draw"]),
    }
    total = config.loss.ce_weight * metrics["plan"] + config.loss.mse_weight * metrics["draw"]
    for number, task in enumerate(config.tasks):
        for name, values, weight, stream in (("plan", nats, plan_weight, text), ("draw", error, draw_weight, latent)):
            mine = weight * (stream["task_id"] == number)
            metrics[f"{name}/{task}"] = _mean(values, mine, totals[f"{name}/{task}"], empty=jnp.nan)
    return total, metrics


def _token_selection(config, key: Array, rows: int) -> TrainingSelection | None:
    """The token selection in `config.token_selection`; None if every token is kept."""
    selection = training_selection(config)
    if selection is None:
        return None
    keys = jax.random.split(jax.random.fold_in(key, 1), rows)
    return TrainingSelection(keys, selection, config.packing.samples * MAX_TRAINING_IMAGES)


def _mean(values: Array, weight: Array, total: Array, empty: float = 0.0) -> Array:
    """This part's share of the weighted mean over all tokens; `empty` if the total weight is 0."""
    return jnp.where(total > 0, jnp.sum(values * weight) / jnp.maximum(total, 1e-6), empty)


def report(metrics: Mapping[str, Array]) -> dict[str, Array]:
    """The metrics of a whole batch for display."""
    return dict(metrics)
