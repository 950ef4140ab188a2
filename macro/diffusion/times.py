"""Which times are trained on and which are visited when drawing.

    training   t = shift(sigmoid(r)),  r ~ N(0, 1)                (logit-normal, arXiv 2403.03206 section 3.1)
    drawing    t_i = shift(1 - i / (points - 1)),  i = 0 .. points - 1
    shift      s(t) = s t / (1 + (s - 1) t)                       (arXiv 2403.03206 eq. 23)

More pixels hide more noise: a shift above 1 spends more of the steps, and of the training, near t = 1. Shifts
compose by multiplication and `1/s` undoes `s`. The packer draws `r` and keeps it raw, so that one data set
serves every shift; a clean image carries r = -inf, which is t = 0 exactly.

All functions take numpy or JAX arrays and stay in that world and dtype (float32: never cast a time down).
Read next: `macro/diffusion/sampler.py`.
"""

import jax
import numpy as np
from jaxtyping import Float

Times = Float[jax.Array | np.ndarray, "*b"]


def shift_times(t: Times, shift: float) -> Times:
    """Bends the unit interval towards noise (shift > 1) or data (shift < 1); keeps 0 and 1 in place."""
    return shift * t / (1 + (shift - 1) * t)


def logit_normal(raw: Times, shift: float) -> Times:
    """Training times from raw normals: strictly between 0 and 1, and 0 for a raw value of -inf."""
    # The sigmoid by tanh, as exp would overflow (and numpy warn) on the raw values of clean images.
    half = raw.__array_namespace__().tanh(raw / 2)
    return shift_times((1 + half) / 2, shift)


def sampling_times(points: int, shift: float) -> Float[np.ndarray, "points"]:
    """The times a sampler visits, from 1 (noise) down to 0 (data): `points - 1` steps lie between them."""
    return shift_times(np.linspace(1, 0, points, dtype=np.float32), shift).astype(np.float32)
