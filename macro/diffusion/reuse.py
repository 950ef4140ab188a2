"""Step caching: between some steps the layers are not run, and what they would have added is predicted.

    residual   r(t) = hidden after the last layer, before the final norm, minus the embedding of x_t
    full step  hidden = layers(embedding),  and r is kept
    skipped    hidden = embedding + p(t),   p the Newton polynomial through the last full steps' r

x_t, time and position are embedded in every step, and the final norm and the velocity head are always computed.

`Taylor` is TaylorSeer (arXiv 2503.06923): full steps on a fixed beat, p of degree `order`. There every block's output
is extrapolated on its own; extrapolation is linear, so extrapolating their sum gives the same hidden state for
1 / layers of the memory. It departs from the paper in one point: the paper counts steps and takes plain differences;
here they are divided by true differences of t, as shifted times are not evenly spaced:

    r[t_0, .., t_k] = (r[t_0, .., t_{k-1}] - r[t_1, .., t_k]) / (t_0 - t_k)                      newest time first
    p(t) = r[t_0] + (t - t_0) (r[t_0, t_1] + (t - t_1) (r[t_0, t_1, t_2] + ...))

`Threshold` is in the manner of TeaCache (arXiv 2411.19108): steps are skipped until the layers' input has changed by
`limit`, summed over steps as |e_t - e_before|_1 / |e_before|_1; p is then the last residual. The input here is the
embedding with its time, as this model has no modulation by time inside its layers; TeaCache's polynomial, fitted to
each model, that rescales the change is left out, so that limits do not carry over from there.

Rows of a batch share one decision. A step may ask for the first rows only (guidance outside its interval); when more
rows are asked for than the step before, the past of the new ones is unknown and the warm-up starts anew.
Nothing here knows a model. Read next: `macro/sampling/draw.py`.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from macro.utils.errors import UserError


class Kept(NamedTuple):
    """What goes from step to step, float32 and int32.

    Attributes:
        left: how many steps are still to be made.
        full: how many ran the layers so far.
        since: steps made since the warm-up last began.
        rows: how many rows the step before asked for.
        times: [order + 1] of the last full steps, newest first.
        differences: [order + 1, b, n, d] divided differences of the residuals, from degree 0 up.
        seen: [b, n, d] embedding at the step before; None where nobody watches it.
        changed: [b] by how much it changed since the last full step; None likewise.
    """

    left: Array
    full: Array
    since: Array
    rows: Array
    times: Array
    differences: Array
    seen: Array | None
    changed: Array | None


@dataclasses.dataclass(frozen=True)
class Taylor:
    """Full in the first `order` + 1 steps and then in every `interval`-th; 1 skips nothing."""

    interval: int = 3
    order: int = 1

    def __post_init__(self):
        if self.interval < 1:
            raise UserError(f"sampling.reuse.interval: {self.interval}, but it must be at least 1 (1 skips nothing)")
        if self.order < 0:
            raise UserError(f"sampling.reuse.order: {self.order}, but it must be at least 0 (0 reuses as it is)")

    def due(self, kept: Kept) -> Bool[Array, ""]:
        """Whether the layers must run now."""
        return (kept.since <= self.order) | ((kept.since - self.order) % self.interval == 0)


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Full once some row's input has changed by `limit` (a share of it) since the last full step; first and last
    steps always are."""

    limit: float = 0.1
    order = 0  # a single residual is kept, and reused as it is

    def __post_init__(self):
        if not self.limit > 0:
            raise UserError(f"sampling.reuse.limit: {self.limit}, but it must be above 0")

    def due(self, kept: Kept) -> Bool[Array, ""]:
        """Whether the layers must run now; no row is skipped that is at its limit."""
        return (kept.since == 0) | (kept.left == 1) | (jnp.max(kept.changed) >= self.limit)


Reuse = Taylor | Threshold
SPECS = {"taylor": Taylor, "threshold": Threshold}


def begin(reuse: Reuse, steps: int, shape: tuple[int, int, int]) -> Kept:
    """Before the first of `steps`; `shape` is [b, n, d] of the embedding with all rows that may be asked for."""
    watched = isinstance(reuse, Threshold)
    zero = jnp.int32(0)
    return Kept(
        left=jnp.int32(steps),
        full=zero,
        since=zero,
        rows=zero,
        times=jnp.full(reuse.order + 1, jnp.inf, jnp.float32),  # a difference over it is 0, not nan
        differences=jnp.zeros((reuse.order + 1, *shape), jnp.float32),
        seen=jnp.zeros(shape, jnp.float32) if watched else None,
        changed=jnp.zeros(shape[0], jnp.float32) if watched else None,
    )


def advance(
    reuse: Reuse,
    kept: Kept,
    layers: Callable[[Array], Array],
    embedded: Float[Array, "b n d"],
    t: Float[Array, ""],
) -> tuple[Float[Array, "b n d"], Kept]:
    """One step at time `t`: the hidden state before the final norm, run or predicted.

    Args:
        layers: from `embedded` to the hidden state; not executed in a skipped step.
        embedded: of the rows that this step needs, which are the first ones of those that `begin` was told of.
    """
    rows = len(embedded)
    kept = kept._replace(since=jnp.where(rows > kept.rows, 0, kept.since), rows=jnp.int32(rows))
    if kept.seen is not None:
        kept = watch(kept, embedded)

    def run():
        hidden = layers(embedded)
        return hidden, record(kept, hidden.astype(jnp.float32) - embedded, t)

    def skip():
        return (embedded + predict(kept, t, rows)).astype(embedded.dtype), kept

    hidden, kept = jax.lax.cond(reuse.due(kept), run, skip)
    return hidden, kept._replace(left=kept.left - 1, since=kept.since + 1)


def watch(kept: Kept, embedded: Float[Array, "b n d"]) -> Kept:
    """Adds up by how much each row's embedding changed. From nothing (the first step) the change is infinite."""
    rows, embedded = len(embedded), embedded.astype(jnp.float32)
    before = kept.seen[:rows]
    change = jnp.sum(jnp.abs(embedded - before), (1, 2)) / jnp.sum(jnp.abs(before), (1, 2))
    return kept._replace(seen=kept.seen.at[:rows].set(embedded), changed=kept.changed.at[:rows].add(change))


def record(kept: Kept, residual: Float[Array, "b n d"], t: Float[Array, ""]) -> Kept:
    """After a full step: its residual, and the differences that it makes with those before.

    Differences that lack a point are meaningless, but none of a lower degree is made from them: after m full steps the
    first m are right.
    """
    new = [residual]
    for degree in range(len(kept.times) - 1):
        new.append((new[-1] - kept.differences[degree, : len(residual)]) / (t - kept.times[degree]))
    return kept._replace(
        full=kept.full + 1,
        times=jnp.concatenate([t[None], kept.times[:-1]]),
        differences=kept.differences.at[:, : len(residual)].set(jnp.stack(new)),
        changed=jax.tree.map(jnp.zeros_like, kept.changed),
    )


def predict(kept: Kept, t: Float[Array, ""], rows: int) -> Float[Array, "b n d"]:
    """The residual of the first `rows` rows at time `t`, from the last full steps."""
    value = kept.differences[-1, :rows]
    for degree in reversed(range(len(kept.times) - 1)):
        value = kept.differences[degree, :rows] + (t - kept.times[degree]) * value
    return value
