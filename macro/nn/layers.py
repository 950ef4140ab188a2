"""Layers shared by all transformers here: dense (with LoRA), rotary and sine-cosine positions, time, remat.

    y = x w + (x a) b + bias          a [in, rank], b [rank, out] where there are adapters (arXiv 2106.09685)

Adapters are a separate variable collection under the kernel's path, `{"lora": {.. {"kernel": {"a", "b"}}}}`, with b
already multiplied by alpha / rank (`macro/training/lora.py`). A kernel with adapters is frozen, and as the product
x w is not a function of a and b, no gradient of the kernel's shape is ever computed.

Without adapters dense's backward pass transposes the narrower side:

    dx = dy w^T;    dw = x^T dy = (dy^T x)^T

JAX differentiates to the last form. On a CPU the transposed copy of dy that it needs is fused with the operations
that compute dy, in a gated MLP a dozen on four arrays, read column by column: one MLP's gradient took 1.7 times as
long as with the other form. Elsewhere the two cost the same.

Rematerialisation (Chen et al., arXiv 1604.06174): what is kept for the backward pass; the rest is recomputed:

    none        a layer keeps all its activations
    attention   a layer keeps its input and the output of its attention
    dots        a layer keeps its matrix products
    full        a layer keeps only its input: least memory, one more forward pass
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float, Int

LORA = "lora"  # the collection of adapters
TIME_FREQUENCIES = 128

ATTENTION_OUT = "attended"  # the checkpoint name of what attention returns
REMAT_POLICIES = {
    "full": None,
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION_OUT),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
REMAT_CHOICES = ("none", *REMAT_POLICIES)


class Dense(nn.Module):
    """As `flax.linen.Dense`: parameters `kernel` [in, features] and `bias`.

    Adapters are added where the collection `lora` has them for its kernel.
    """

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


def rope_angles(
    rope: Int[Array, "b n"], head_dim: int, theta: float
) -> tuple[Float[Array, "b n half"], Float[Array, "b n half"]]:
    """Cosine and sine of position times frequency `theta^(-2i/head_dim)`, float32."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = rope[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def apply_rope(
    x: Float[Array, "b n h d"], cos: Float[Array, "b n half"], sin: Float[Array, "b n half"]
) -> Float[Array, "b n h d"]:
    """Rotates the first half of each head against the second, in float32; keeps the dtype of `x`."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def position_embedding(position: Int[Array, "b n"], side: int, width: int) -> Float[Array, "b n {width}"]:
    """2-D sine-cosine embedding of `position = row * side + column`, float32.

    The column takes the first half of the width, the row the second; each half is sine, then cosine, of the
    coordinate times `10000^(-i / (width / 4))`.
    """
    quarter = width // 4
    frequency = 10000.0 ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)
    row = (position // side)[..., None].astype(jnp.float32) * frequency
    column = (position % side)[..., None].astype(jnp.float32) * frequency
    return jnp.concatenate([jnp.sin(column), jnp.cos(column), jnp.sin(row), jnp.cos(row)], axis=-1)


def time_sinusoids(t: Float[Array, "*shape"]) -> Float[Array, "*shape 256"]:
    """Cosines, then sines, of `t * 10000^(-i/128)` for time `t` in 0..1 (not scaled), float32."""
    exponent = jnp.arange(TIME_FREQUENCIES, dtype=jnp.float32) / TIME_FREQUENCIES
    angle = t[..., None].astype(jnp.float32) * jnp.exp(-jnp.log(10000.0) * exponent)
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def apply_remat(layer: type[nn.Module], policy: str) -> type[nn.Module]:
    """The layer class with a policy of `REMAT_CHOICES` applied, to be scanned over."""
    if policy == "none":
        return layer
    return nn.remat(layer, prevent_cse=False, policy=REMAT_POLICIES[policy])
