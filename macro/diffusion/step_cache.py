"""Step caching: some sampling steps skip the layers and predict what they would have added.

    residual       r(t) = hidden after the last layer, before the final norm, minus the embedding of x_t
    full step      hidden = layers(embedding), and r is cached
    skipped step   hidden = embedding + p(t), where p is the Newton polynomial through the last cached r

x_t, timestep and position are embedded in every step; the final norm and the velocity head always run.

`TaylorSeer` (arXiv 2503.06923): full steps at a fixed interval, p of degree `order`. The paper extrapolates every
block's output on its own; extrapolation is linear, so extrapolating their sum gives the same hidden state for
1 / layers of the memory. One change: the paper takes plain differences between steps; here they are divided by the true
differences of t, because shifted timesteps are not evenly spaced:

    r[t_0, .., t_k] = (r[t_0, .., t_{k-1}] - r[t_1, .., t_k]) / (t_0 - t_k)                      newest time first
    p(t) = r[t_0] + (t - t_0) (r[t_0, t_1] + (t - t_1) (r[t_0, t_1, t_2] + ...))

`TeaCache` follows arXiv 2411.19108: steps are skipped until the layers' input has changed by `limit`, summed over
steps as |e_t - e_before|_1 / |e_before|_1; p is then the last residual. The input here is the embedding
with its timestep, because this model has no modulation by time inside its layers. The paper's polynomial that rescales
the change, fitted to each model, is left out, so limits do not carry over from there.

All sequences of a batch share one decision. A step may use the first sequences only (guidance outside its interval);
when a step uses more than the one before, the new ones have no history and the warm-up starts again. Nothing here
depends on a model. Read next: `macro/sampling/denoise.py`.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from macro.utils.errors import UserError


class CacheState(NamedTuple):
    """The state passed from step to step, float32 and int32.

    Attributes:
        steps_left: number of remaining steps.
        full_steps: number of steps that ran the layers so far.
        since_warmup: number of steps since the warm-up last started.
        batch: number of sequences in the previous step.
        times: [order + 1] of the last full steps, newest first.
        differences: [order + 1, b, n, d] divided differences of the residuals, from degree 0 up.
        last_input: [b, n, d] embedding of the previous step; None for `TaylorSeer`, which does not need it.
        change: [b] accumulated relative change of the input since the last full step; None likewise.
    """

    steps_left: Array
    full_steps: Array
    since_warmup: Array
    batch: Array
    times: Array
    differences: Array
    last_input: Array | None
    change: Array | None


@dataclasses.dataclass(frozen=True)
class TaylorSeer:
    """Full steps: the first `order` + 1, then every `interval`-th; an interval of 1 skips nothing."""

    interval: int = 3
    order: int = 1

    def __post_init__(self):
        if self.interval < 1:
            raise UserError(f"sampling.step_cache.interval: {self.interval}, but must be at least 1 (1 skips nothing)")
        if self.order < 0:
            raise UserError(f"sampling.step_cache.order: {self.order}, but must be at least 0 (0 repeats the residual)")

    def should_compute(self, state: CacheState) -> Bool[Array, ""]:
        """Whether the layers must run in this step."""
        return (state.since_warmup <= self.order) | ((state.since_warmup - self.order) % self.interval == 0)


@dataclasses.dataclass(frozen=True)
class TeaCache:
    """Full steps: the first, the last, and each one where the input of some sequence has changed by `limit` (relative)
    since the last full step."""

    limit: float = 0.1
    order = 0  # the last residual is repeated

    def __post_init__(self):
        if not self.limit > 0:
            raise UserError(f"sampling.step_cache.limit: {self.limit}, but it must be above 0")

    def should_compute(self, state: CacheState) -> Bool[Array, ""]:
        """Whether the layers must run in this step."""
        return (state.since_warmup == 0) | (state.steps_left == 1) | (jnp.max(state.change) >= self.limit)


StepCache = TaylorSeer | TeaCache
SPECS = {"taylor": TaylorSeer, "threshold": TeaCache}


def init_cache(cache: StepCache, steps: int, shape: tuple[int, int, int]) -> CacheState:
    """The state before the first of `steps` steps; `shape` is [b, n, d] of the largest batch of a step."""
    watches_input = isinstance(cache, TeaCache)
    zero = jnp.int32(0)
    return CacheState(
        steps_left=jnp.int32(steps),
        full_steps=zero,
        since_warmup=zero,
        batch=zero,
        times=jnp.full(cache.order + 1, jnp.inf, jnp.float32),  # a difference divided by it is 0, not nan
        differences=jnp.zeros((cache.order + 1, *shape), jnp.float32),
        last_input=jnp.zeros(shape, jnp.float32) if watches_input else None,
        change=jnp.zeros(shape[0], jnp.float32) if watches_input else None,
    )


def cached_step(
    cache: StepCache,
    state: CacheState,
    layers: Callable[[Array], Array],
    embedded: Float[Array, "b n d"],
    t: Float[Array, ""],
) -> tuple[Float[Array, "b n d"], CacheState]:
    """One step at time `t`: the hidden state before the final norm, computed or predicted.

    Args:
        layers: maps `embedded` to the hidden state; not executed in a skipped step.
        embedded: embedding of the sequences in this step, the first ones of the batch in `init_cache`.
    """
    batch = len(embedded)
    state = state._replace(since_warmup=jnp.where(batch > state.batch, 0, state.since_warmup), batch=jnp.int32(batch))
    if state.last_input is not None:
        state = accumulate_change(state, embedded)

    def run():
        hidden = layers(embedded)
        return hidden, update(state, hidden.astype(jnp.float32) - embedded, t)

    def skip():
        return (embedded + predict(state, t, batch)).astype(embedded.dtype), state

    hidden, state = jax.lax.cond(cache.should_compute(state), run, skip)
    return hidden, state._replace(steps_left=state.steps_left - 1, since_warmup=state.since_warmup + 1)


def accumulate_change(state: CacheState, embedded: Float[Array, "b n d"]) -> CacheState:
    """Adds the relative change of each sequence's embedding; it is infinite in the first step (from zeros)."""
    batch, embedded = len(embedded), embedded.astype(jnp.float32)
    before = state.last_input[:batch]
    change = jnp.sum(jnp.abs(embedded - before), (1, 2)) / jnp.sum(jnp.abs(before), (1, 2))
    return state._replace(
        last_input=state.last_input.at[:batch].set(embedded), change=state.change.at[:batch].add(change)
    )


def update(state: CacheState, residual: Float[Array, "b n d"], t: Float[Array, ""]) -> CacheState:
    """Caches the residual of a full step and its divided differences with earlier ones.

    After m full steps the first m differences are valid; those of a higher degree do not affect lower ones.
    """
    new = [residual]
    for degree in range(len(state.times) - 1):
        new.append((new[-1] - state.differences[degree, : len(residual)]) / (t - state.times[degree]))
    return state._replace(
        full_steps=state.full_steps + 1,
        times=jnp.concatenate([t[None], state.times[:-1]]),
        differences=state.differences.at[:, : len(residual)].set(jnp.stack(new)),
        change=jax.tree.map(jnp.zeros_like, state.change),
    )


def predict(state: CacheState, t: Float[Array, ""], batch: int) -> Float[Array, "b n d"]:
    """The residual of the first `batch` sequences at time `t`, from the last full steps."""
    value = state.differences[-1, :batch]
    for degree in reversed(range(len(state.times) - 1)):
        value = state.differences[degree, :batch] + (t - state.times[degree]) * value
    return value
