"""Rectified flow (arXiv 2209.03003): the path between data and noise, the timesteps, and the Euler sampler.

    path       x_t = (1 - t) x_0 + t eps                          t = 0 is data, t = 1 is noise
    velocity   v   = dx_t / dt = eps - x_0
    training   t   = shift(sigmoid(r)),  r ~ N(0, 1)              logit-normal, arXiv 2403.03206 section 3.1
    sampling   t_i = shift(1 - i / (points - 1)),  i = 0 .. points - 1
               x  <- x - (t_i - t_{i+1}) v(x, t_i)                Euler
    shift      s(t) = s t / (1 + (s - 1) t)                       arXiv 2403.03206 eq. 23

The convention for t is defined here only. Large images need a shift above 1, which moves more of the sampling steps
and of the training times near t = 1. Shifts compose by multiplication and `1/s` undoes `s`. A packed batch
stores the raw normal r, so that one data set serves every shift; the tokens of a clean image have r = -inf, which is
t = 0 exactly.

The functions of the path and of timesteps take numpy or JAX arrays and return the same kind in the same dtype (float32:
never cast a timestep down).
Read next: `macro/diffusion/guidance.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Values = Float[jax.Array | np.ndarray, "*b c"]
Times = Float[jax.Array | np.ndarray, "*b"]


def interpolate(x_0: Values, eps: Values, t: Times) -> Values:
    """The point at time `t` on the path from `x_0` (t = 0) to `eps` (t = 1); one time per token."""
    t = t[..., None]
    return (1 - t) * x_0 + t * eps


def velocity(x_0: Values, eps: Values) -> Values:
    """The velocity of the path, the target of the flow loss; it does not depend on time."""
    return eps - x_0


def shift_times(t: Times, shift: float) -> Times:
    """Bends the unit interval towards noise (shift > 1) or data (shift < 1); keeps 0 and 1 in place."""
    return shift * t / (1 + (shift - 1) * t)


def logit_normal(raw: Times, shift: float) -> Times:
    """Training timesteps from raw normals: strictly between 0 and 1, and 0 for a raw value of -inf."""
    # The sigmoid via tanh, since exp would overflow (and numpy warn) on the raw values of clean images.
    half = raw.__array_namespace__().tanh(raw / 2)
    return shift_times((1 + half) / 2, shift)


def sampling_times(points: int, shift: float) -> Float[np.ndarray, "points"]:
    """The timesteps of a sampler, from 1 (noise) down to 0 (data), with `points - 1` steps between them."""
    return shift_times(np.linspace(1, 0, points, dtype=np.float32), shift).astype(np.float32)


def euler(
    velocity: Callable[[Array, Array, Any], tuple[Array, Any]],
    noise: Float[Array, "*x"],
    times: Float[Array | np.ndarray, "points"],
    state: Any = None,
) -> tuple[Float[Array, "*x"], Any]:
    """Integrates a velocity from `noise` at `times[0]` to `times[-1]`, in one `scan` for any number of steps.

    Args:
        velocity: `velocity(x, t, state)` with scalar t returns (dx/dt, state for the next step): a model, a guided sum
            of several contexts, or an ODE. The state may hold a step cache (`macro/diffusion/step_cache.py`).
        noise: x at the start.
        times: from `sampling_times`.
        state: initial state; None for a velocity without state.

    Returns:
        (x at the end, last state).
    """

    def step(carry, interval):
        (x, state), (start, end) = carry, interval
        v, state = velocity(x, start, state)
        return (x - (start - end) * v, state), None

    times = jnp.asarray(times)
    return jax.lax.scan(step, (noise, state), (times[:-1], times[1:]))[0]
