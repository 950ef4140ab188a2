"""Plan and draw together: `w1 * L1 + w2 * L2` over one packed batch (MUSIC, section 3)."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array

from macro.models.composer import Composer
from macro.models.initial import initial
from macro.models.vae import latent_table
from macro.objectives.draw import draw_losses, noised
from macro.objectives.parts import model_config, replaced
from macro.objectives.plan import plan_losses

# The VAE is never trained together with the composer.
FROZEN = ("vae/.*",)


def init(key: Array, config) -> dict:
    """Parameters `{"composer", "vae"}`: random, or read from the file that `config.init_from` names for a part."""
    return replaced(initial(key, model_config(config)), config)


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
