"""A small convolutional classifier: which kind of subject, in which texture, is in a square crop of an image.

Read next: `macro/evals/classifier/` (its weights, training and use as a judge).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

CROP = 48  # side of the network's input, pixels
MARGIN = 1.15  # the crop's side, in units of the longer side of the box around the cells


class SubjectClassifier(nn.Module):
    """Crops [b, 48, 48, 3] in -1..1 to logits of kinds (the first: no subject) and of textures.

    The kind is read from spatial features; the texture from these and features pooled over the crop's middle.
    """

    kinds: int
    textures: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b k"], Float[Array, "b j"]]:
        x = nn.Conv(32, (4, 4), (2, 2), name="conv_0")(x)
        for n, (channels, stride) in enumerate(((64, 1), (96, 2), (96, 1)), 1):
            x = nn.gelu(nn.GroupNorm(8, name=f"norm_{n}")(x))
            x = nn.Conv(channels, (3, 3), (stride, stride), name=f"conv_{n}")(x)
        x = nn.gelu(nn.GroupNorm(8, name="norm_4")(x))
        middle = x[:, 2:-2, 2:-2]
        patterns = jnp.concatenate([middle.max((1, 2)), middle.mean((1, 2))], -1)
        x = nn.Conv(128, (3, 3), (2, 2), name="conv_4")(x)
        x = nn.gelu(nn.GroupNorm(8, name="norm_5")(x))
        x = nn.Conv(32, (1, 1), name="squeeze")(x).reshape(x.shape[0], -1)
        x = nn.gelu(nn.Dense(128, name="hidden")(x))
        patterns = nn.gelu(nn.Dense(96, name="patterns")(jnp.concatenate([patterns, x], -1)))
        return nn.Dense(self.kinds, name="kind")(x), nn.Dense(self.textures, name="texture")(patterns)


def square(box: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 3"]:
    """(middle x, middle y, side) of the crop around a box (x0, y0, x1, y1), all in 0..1 of the image."""
    side = MARGIN * np.maximum(box[..., 2] - box[..., 0], box[..., 3] - box[..., 1])
    return np.stack([(box[..., 0] + box[..., 2]) / 2, (box[..., 1] + box[..., 3]) / 2, side], -1)


def crop(
    images: UInt8[Array, "b h w 3"], squares: Float[Array, "b 3"], blur: Float[Array, "b"]
) -> Float[Array, "b 48 48 3"]:
    """Square crops, resampled by a Gaussian to 48 x 48 and to -1..1; 0 outside the image.

    Args:
        images: one per crop.
        squares: middle x, middle y and side, in 0..1 of the image.
        blur: standard deviation of an added blur, as a share of the crop's side.
    """

    def weights(middle: Array, side: Array, blur: Array, pixels: int) -> Array:
        """[48, pixels]: the weight of each pixel along an axis in each position of the crop."""
        places = (middle + side * ((jnp.arange(CROP) + 0.5) / CROP - 0.5)) * pixels
        step = side * pixels / CROP
        width = jnp.sqrt(jnp.maximum(0.45 * step, 0.6) ** 2 + (blur * side * pixels) ** 2)
        away = (places[:, None] - jnp.arange(pixels) - 0.5) / width
        return jnp.exp(-0.5 * away**2) / (width * np.sqrt(2 * np.pi))

    def one(image: Array, square: Array, blur: Array) -> Array:
        rows = weights(square[1], square[2], blur, image.shape[0])
        columns = weights(square[0], square[2], blur, image.shape[1])
        return jnp.einsum("rh,hwc,kw->rkc", rows, image.astype(jnp.float32) / 127.5 - 1, columns)

    return jax.vmap(one)(images, squares, blur)
