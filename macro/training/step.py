"""One training step: loss, gradient, update, average; one compiled function for every objective.

Step t draws its noise from fold_in(key(seed), t), so a step follows from (seed, t, batch) and can be
replayed. With `config.grad_accum_steps` above 1 a batch is processed in that many parts, one after another, and their
gradients are accumulated: the same means over the same tokens, in less memory.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from macro.parallel.sharding import constrain
from macro.training import optim
from macro.training.state import TrainState, frozen, placement
from macro.utils import tree

Step = Callable[[TrainState, dict], tuple[TrainState, dict]]


def make_step(objective, config, mesh: Mesh) -> Step:
    """Compiles (lazily) the step of an objective.

    Args:
      objective: a module of `macro/objectives`.
      config: `seed`, `total_steps`, `optim`, `grad_accum_steps` (missing: 1) and the objective's own keys.
      mesh: over which state and batches are sharded; the step is called (or lowered) under `jax.set_mesh(mesh)`.

    Returns:
      step(state, batch) -> (state, metrics), which donates the state it is given. Metrics are float32
      scalars: those of the objective, `loss`, `lr`, `grad_norm`, `examples_seen` (int32, in total) and per
      stream `fill/<stream>`, the share of its capacity that holds tokens.
    """
    settings = optim.optim_config(config)
    optimizer = optim.optimizer(settings, config.total_steps)
    kept = frozen(objective, config)
    rate = optim.learning_rate(settings, config.total_steps)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        trained, frozen = tree.split(state.params, kept)
        totals = objective.totals(batch, config)

        def gradient(part: dict, key: jax.Array):
            def loss_of(trained):
                return objective.loss(tree.merge(trained, frozen), part, key, config, totals)

            return jax.value_and_grad(loss_of, has_aux=True)(trained)

        (loss, metrics), grads = _accumulated(gradient, batch, key, config.get("grad_accum_steps", 1))
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        decay = optim.ema_decay(state.step, settings.ema_decay)
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, trained)
        examples = state.examples + jnp.sum(batch["examples"] >= 0, dtype=jnp.int32)
        metrics = (
            objective.report(metrics)
            | _fill(batch)
            | {
                "loss": loss,
                "lr": rate(state.step),
                "grad_norm": optax.global_norm(grads),
                "examples_seen": examples,
            }
        )
        # A step whose loss or gradient is not finite changes nothing but the counts.
        finite = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
        before = tree.split(state.params, kept)[0], state.ema, state.opt_state
        after = (trained, ema, opt_state)
        trained, ema, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
        return TrainState(state.step + 1, examples, tree.merge(trained, frozen), ema, opt_state), metrics

    _, laid = placement(objective, config, mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(laid, NamedSharding(mesh, PartitionSpec())))


def _accumulated(gradient: Callable, batch: dict, key: jax.Array, parts: int):
    """Sums of ((loss, metrics), gradients) over `parts` parts of the batch, each with examples of every device."""
    if parts == 1:
        return gradient(batch, key)

    def split(x):
        taken = jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)
        return constrain(taken, None, "batch", *(None,) * (x.ndim - 1))

    def add(sums, numbered):
        number, part = numbered
        return jax.tree.map(jnp.add, sums, gradient(part, jax.random.fold_in(key, number))), None

    batches = jax.tree.map(split, batch)
    first = jax.tree.map(lambda x: x[0], batches)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, first, key))
    return jax.lax.scan(add, zeros, (jnp.arange(parts), batches))[0]


def _fill(batch: dict) -> dict:
    """Share of each packed stream's capacity that holds tokens rather than padding."""
    streams = {name: part for name, part in batch.items() if isinstance(part, dict) and "segment_ids" in part}
    return {f"fill/{name}": jnp.mean(part["segment_ids"] >= 0) for name, part in streams.items()}
