"""The straight path between data and noise, and the velocity along it (rectified flow, arXiv 2209.03003).

    x_t = (1 - t) x_0 + t eps        t = 0 is data, t = 1 is noise
    v   = dx_t / dt = eps - x_0

The convention is said here and nowhere else.

Read next: `macro/diffusion/times.py`, where t comes from.
"""

import jax
import numpy as np
from jaxtyping import Float

Values = Float[jax.Array | np.ndarray, "*b c"]
Times = Float[jax.Array | np.ndarray, "*b"]


def interpolate(x_0: Values, eps: Values, t: Times) -> Values:
    """The point at time `t` of the path from `x_0` (t = 0) to `eps` (t = 1); one time per token."""
    t = t[..., None]
    return (1 - t) * x_0 + t * eps


def velocity(x_0: Values, eps: Values) -> Values:
    """The path's velocity, the target of the flow loss: the same at every time."""
    return eps - x_0
