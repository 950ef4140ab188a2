"""From noise to data: Euler steps along a velocity.

    x <- x - (t_i - t_{i+1}) v(x, t_i)         for t_0 = 1 > t_1 > ... > t_T = 0

One `scan`, so that a whole drawing is one compiled loop whatever the number of steps. The velocity may be
anything: a model, a guided sum of several contexts, or an ODE with a known solution (as in the tests).
Read next: `macro/sampling/draw.py`, which brings the model.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def euler(
    velocity: Callable[[Array, Array], Array],
    noise: Float[Array, "*x"],
    times: Float[Array | np.ndarray, "points"],
) -> Float[Array, "*x"]:
    """Integrates `velocity(x, t)` (t a scalar) from `noise` at `times[0]` to the last of `times`."""

    def step(x, interval):
        start, end = interval
        return x - (start - end) * velocity(x, start), None

    times = jnp.asarray(times)
    return jax.lax.scan(step, noise, (times[:-1], times[1:]))[0]
