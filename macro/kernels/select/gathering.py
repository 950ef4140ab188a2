"""Rows taken out of an array by any backend, with the gradient that puts them back."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def taken(backend, x: Array, indices: Array, valid: Array) -> Array:
    """`backend(x [lead, b, n, ...], indices [b, k], valid [b, k])`, see `reference.gather_reference`."""
    return backend(x, indices, valid)


def _forward(backend, x, indices, valid):
    # Of x only the shape is kept, in an array without any size.
    return backend(x, indices, valid), (jnp.zeros((*x.shape[:3], 0), x.dtype), indices, valid)


def _backward(backend, kept, slopes):
    like, indices, valid = kept
    lead, b, n = like.shape[:3]
    places = jnp.where(valid, indices, n)
    whole = jnp.zeros((lead, b, n, *slopes.shape[3:]), slopes.dtype)
    whole = whole.at[:, jnp.arange(b)[:, None], places].add(slopes, mode="drop")
    return whole, *(np.zeros(x.shape, jax.dtypes.float0) for x in (indices, valid))


taken.defvjp(_forward, _backward)
