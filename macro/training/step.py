"""One training step: loss, gradient, update, average; one compiled function that everything trained goes
through.

Step t draws its noise from fold_in(key(seed), t), so a step follows from (seed, t, batch) and can be
replayed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from macro.parallel.rules import sharding
from macro.training import optim
from macro.training.state import TrainState, frozen
from macro.utils import tree

Step = Callable[[TrainState, dict], tuple[TrainState, dict]]


def make_step(objective, config, mesh: Mesh) -> Step:
    """Compiles (lazily) the step of an objective.

    Args:
      objective: `loss(params, batch, key, config) -> (scalar, metrics)` and `FROZEN`, regexes of parameter
      paths.
      config: `seed`, `total_steps`, `optim` and whatever the objective reads.
      mesh: where the batch's rows lie.

    Returns:
      step(state, batch) -> (state, metrics), which uses up the state it is given. Metrics are float32
      scalars: those of the objective, `loss`, `lr`, `grad_norm`, `examples_seen` (int32, in total) and per
      stream `fill/<stream>`, the share of its places that hold a token.
    """
    settings = optim.optim_config(config)
    optimizer = optim.optimizer(settings, config.total_steps)
    kept = frozen(objective, config)
    rate = optim.learning_rate(settings, config.total_steps)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        trained, frozen = tree.split(state.params, kept)

        def loss_of(trained):
            return objective.loss(tree.merge(trained, frozen), batch, key, config)

        (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(trained)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        decay = optim.ema_decay(state.step, settings.ema)
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, trained)
        examples = state.examples + jnp.sum(batch["examples"] >= 0, dtype=jnp.int32)
        metrics = (
            metrics
            | _fill(batch)
            | {
                "loss": loss,
                "lr": rate(state.step),
                "grad_norm": optax.global_norm(grads),
                "examples_seen": examples,
            }
        )
        params = tree.merge(trained, frozen)
        return TrainState(state.step + 1, examples, params, ema, opt_state), metrics

    everywhere = sharding(mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(everywhere, everywhere))


def _fill(batch: dict) -> dict:
    """Share of places of each packed stream that hold a token rather than padding."""
    streams = {name: part for name, part in batch.items() if isinstance(part, dict) and "sample" in part}
    return {f"fill/{name}": jnp.mean(part["sample"] >= 0) for name, part in streams.items()}
