"""From noise to data: Euler steps along a velocity.

    x <- x - (t_i - t_{i+1}) v(x, t_i)         for t_0 = 1 > t_1 > ... > t_T = 0

One `scan`, so that a whole drawing is one compiled loop whatever the number of steps. The velocity may be
anything: a model, a guided sum of several contexts, or an ODE with a known solution (as in the tests). It may keep
something from step to step (`macro/diffusion/reuse.py`); one that keeps nothing hands None on.
Read next: `macro/sampling/draw.py`, which brings the model.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def euler(
    velocity: Callable[[Array, Array, Any], tuple[Array, Any]],
    noise: Float[Array, "*x"],
    times: Float[Array | np.ndarray, "points"],
    kept: Any = None,
) -> tuple[Float[Array, "*x"], Any]:
    """Integrates `velocity(x, t, kept)` (t a scalar) from `noise` at `times[0]` to the last of `times`.

    `velocity` returns what it keeps for the next step besides; the last of it is returned besides the last x.
    """

    def step(carry, interval):
        (x, kept), (start, end) = carry, interval
        v, kept = velocity(x, start, kept)
        return (x - (start - end) * v, kept), None

    times = jnp.asarray(times)
    return jax.lax.scan(step, (noise, kept), (times[:-1], times[1:]))[0]
