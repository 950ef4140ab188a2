"""The dense layer of every transformer here: tokens times a matrix, and beside it LoRA's two small ones.

    y = x w + (x a) b + bias          a [in, rank], b [rank, out] where there are adapters (arXiv 2106.09685)

Adapters lie in a variable collection of their own under the kernel's path, `{"lora": {.. {"kernel": {"a", "b"}}}}`, b
multiplied by alpha / rank already (`macro/training/lora.py`). The kernel beside adapters is frozen, and as the product
x w is not a function of a and b, no gradient of the kernel's shape is ever computed.

Without adapters the backward pass transposes the narrower side:

    dx = dy w^T;    dw = x^T dy = (dy^T x)^T

JAX differentiates to the last form. On a CPU the transposed copy of dy that it needs is fused with whatever made
dy, which in a gated MLP is a dozen operations on four arrays, walked column by column: one MLP's gradient took 1.7
times as long as with the other form. Elsewhere the two cost the same.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

LORA = "lora"  # the collection of adapters


class Dense(nn.Module):
    """As `flax.linen.Dense`, parameters `kernel` [in, features] and `bias`; with adapters where the collection `lora`
    has them for its kernel."""

    features: int
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*tokens i"]) -> Float[Array, "*tokens o"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if self.has_variable(LORA, "kernel"):
            pair = self.get_variable(LORA, "kernel")
            y = jnp.dot(x, kernel) + jnp.dot(jnp.dot(x, pair["a"].astype(x.dtype)), pair["b"].astype(x.dtype))
        else:
            y = linear(x, kernel)
        return y if bias is None else y + bias


@jax.custom_vjp
def linear(x: Float[Array, "*tokens i"], w: Float[Array, "i o"]) -> Float[Array, "*tokens o"]:
    """x w."""
    return jnp.tensordot(x, w, axes=1)


def _forward(x, w):
    return linear(x, w), (x, w)


def _backward(residuals, dy):
    x, w = residuals
    tokens = tuple(range(x.ndim - 1))
    if x.shape[-1] <= dy.shape[-1]:
        dw = jnp.tensordot(x, dy, axes=(tokens, tokens))
    else:
        dw = jnp.tensordot(dy, x, axes=(tokens, tokens)).T
    return jnp.tensordot(dy, w, axes=((-1,), (1,))), dw


linear.defvjp(_forward, _backward)
