"""The image autoencoder: FLUX's VAE, as BAGEL uses it, at any width.

    encode   image [b, h, w, 3] in -1..1  ->  mean, logvar [b, h/8, w/8, z]     (stride 8 at four levels)
    sample   latent = mean + exp(logvar / 2) * noise
    normalise          x0 = scale * (latent - shift)         what the diffusion head is trained on
    decode   x0 -> image [b, h, w, 3], about -1..1; the caller clips

Convolutional residual levels with group normalisation and swish, a single-head attention at the smallest
size, no skip connections. Modules carry the upstream checkpoint's names (`encoder.down.0.block.1.conv2` is
`encoder/down_0/block_1/conv2` here), so that a table of regular expressions can import it.

Read next: `macro/objectives/autoencoder.py`, which trains a small one, and `macro/models/composer.py`, which reads the
latents.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from macro.models.variants import ModelConfig, VAEConfig

NORM_EPS = 1e-6
ATTENTION_CHUNK = 1024  # queries of the middle block's attention per chunk
ENCODE_CHUNK = 1 << 20  # pixels of a packed sequence's images that are encoded at once


def norm(groups: int, name: str, dtype: DTypeLike) -> nn.GroupNorm:
    """Group normalisation; widths must be multiples of `groups`. The variance is computed in two passes,
    since mean(x^2) - mean(x)^2 loses precision on the flat skies of rendered images."""
    return nn.GroupNorm(groups, epsilon=NORM_EPS, use_fast_variance=False, dtype=dtype, name=name)


def conv3(channels: int, name: str, dtype: DTypeLike) -> nn.Conv:
    return nn.Conv(channels, (3, 3), padding=((1, 1), (1, 1)), dtype=dtype, name=name)


class ResBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), with a 1x1 shortcut where the width changes."""

    channels: int
    groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        y = conv3(self.channels, "conv1", self.dtype)(nn.swish(norm(self.groups, "norm1", self.dtype)(x)))
        y = conv3(self.channels, "conv2", self.dtype)(nn.swish(norm(self.groups, "norm2", self.dtype)(y)))
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, dtype=self.dtype, name="nin_shortcut")(x)
        return x + y


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions of the image; used at the smallest size only."""

    groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        _, h, w, c = x.shape
        y = rearrange(norm(self.groups, "norm", self.dtype)(x), "b h w c -> b (h w) c")
        q, k, v = (nn.Dense(c, dtype=self.dtype, name=name)(y) for name in "qkv")

        def attend(q: Float[Array, "b m c"]) -> Float[Array, "b m c"]:
            scores = jnp.einsum("bqc,bkc->bqk", q, k, preferred_element_type=jnp.float32) / c**0.5
            return jnp.einsum("bqk,bkc->bqc", jax.nn.softmax(scores).astype(v.dtype), v)

        # An image of 1024 x 1024 has 16,384 positions: a gigabyte of scores if computed at once.
        chunks = h * w // ATTENTION_CHUNK if h * w % ATTENTION_CHUNK == 0 else 1
        parts = rearrange(q, "b (g m) c -> g b m c", g=chunks)
        y = rearrange(jax.lax.map(attend, parts), "g b m c -> b (g m) c")
        y = nn.Dense(c, dtype=self.dtype, name="proj_out")(y)
        return x + rearrange(y, "b (h w) c -> b h w c", h=h, w=w)


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        x = ResBlock(x.shape[-1], self.groups, self.dtype, name="block_1")(x)
        x = AttentionBlock(self.groups, self.dtype, name="attn_1")(x)
        return ResBlock(x.shape[-1], self.groups, self.dtype, name="block_2")(x)


class Downsample(nn.Module):
    """Halves both sides. Padding is added below and on the right only, as upstream."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        padding = ((0, 1), (0, 1))
        return nn.Conv(x.shape[-1], (3, 3), strides=2, padding=padding, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Doubles both sides by repeating pixels, then smooths with a convolution."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        b, h, w, c = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
        return conv3(c, "conv", self.dtype)(x)


class UpDownBlock(nn.Module):
    """Residual blocks at one size; then, except at the last level, resampling to the next size."""

    channels: int
    blocks: int
    resample: str | None  # "downsample", "upsample" or None
    groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        for block in range(self.blocks):
            x = ResBlock(self.channels, self.groups, self.dtype, name=f"block_{block}")(x)
        if self.resample == "downsample":
            x = Downsample(self.dtype, name="downsample")(x)
        elif self.resample == "upsample":
            x = Upsample(self.dtype, name="upsample")(x)
        return x


class Encoder(nn.Module):
    """Maps an image to the 2z channels of the posterior's moments."""

    config: VAEConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h2 w2 z2"]:
        config, last = self.config, len(self.config.multipliers) - 1
        x = conv3(config.channels, "conv_in", self.dtype)(x)
        for level, multiplier in enumerate(config.multipliers):
            resample = "downsample" if level < last else None
            channels = config.channels * multiplier
            x = UpDownBlock(channels, config.res_blocks, resample, config.groups, self.dtype, name=f"down_{level}")(x)
        x = MidBlock(config.groups, self.dtype, name="mid")(x)
        x = nn.swish(norm(config.groups, "norm_out", self.dtype)(x))
        return conv3(2 * config.z, "conv_out", self.dtype)(x)


class Decoder(nn.Module):
    """Maps a latent (not normalised) to an image. Levels run from the smallest size to the largest, each with one
    residual block more than its counterpart in the encoder; `up_0`, the full-size level, is last."""

    config: VAEConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "b h w z"]) -> Float[Array, "b h2 w2 3"]:
        config = self.config
        x = conv3(config.channels * config.multipliers[-1], "conv_in", self.dtype)(z)
        x = MidBlock(config.groups, self.dtype, name="mid")(x)
        for level in reversed(range(len(config.multipliers))):
            resample = "upsample" if level > 0 else None
            channels = config.channels * config.multipliers[level]
            x = UpDownBlock(channels, config.res_blocks + 1, resample, config.groups, self.dtype, name=f"up_{level}")(x)
        x = nn.swish(norm(config.groups, "norm_out", self.dtype)(x))
        return conv3(3, "conv_out", self.dtype)(x)


class VAE(nn.Module):
    """Encoder and decoder. Call `vae.apply({"params": p}, ..., method="encode" | "decode")`.

    Image sides must be multiples of `config.stride`, channel widths multiples of `config.groups`.
    Parameters are float32; `dtype` is that of the activations.
    """

    config: VAEConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.encoder = Encoder(self.config, self.dtype)
        self.decoder = Decoder(self.config, self.dtype)

    def encode(self, images: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b h2 w2 z"], Float[Array, "b h2 w2 z"]]:
        """Encodes images in -1..1 to mean and log variance of the latent, not normalised, float32.

        Raises:
            ValueError: a side is not a multiple of `config.stride`.
        """
        stride = self.config.stride
        if images.shape[1] % stride or images.shape[2] % stride:
            raise ValueError(f"image sides {images.shape[1:3]} must be multiples of {stride}")
        moments = self.encoder(images.astype(self.dtype)).astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, logvar

    def decode(self, x0: Float[Array, "b h w z"]) -> Float[Array, "b h2 w2 3"]:
        """Decodes normalised latents to images in about -1..1 (not clipped), float32."""
        return self.decoder(denormalise(x0, self.config).astype(self.dtype)).astype(jnp.float32)

    def __call__(self, images: Float[Array, "b h w 3"], key: PRNGKeyArray) -> Float[Array, "b h w 3"]:
        """Encodes and decodes through a sampled latent; uses every parameter, as `init` needs."""
        mean, logvar = self.encode(images)
        return self.decode(normalise(sample(mean, logvar, key), self.config))


def sample(
    mean: Float[Array, "b h w z"], logvar: Float[Array, "b h w z"], key: PRNGKeyArray
) -> Float[Array, "b h w z"]:
    """Samples the posterior. BAGEL does so at inference too, not only in training."""
    return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)


def normalise(latent: Float[Array, "*shape"], config: VAEConfig) -> Float[Array, "*shape"]:
    """Scales latents to about zero mean and unit variance: scale * (latent - shift)."""
    return config.scale * (latent - config.shift)


def denormalise(x0: Float[Array, "*shape"], config: VAEConfig) -> Float[Array, "*shape"]:
    """The inverse of `normalise`."""
    return x0 / config.scale + config.shift


def patchify(latents: Float[Array, "b h w z"], patch: int) -> Float[Array, "b n c"]:
    """Groups squares of `patch` x `patch` latents into tokens, row-major; the order in a token is (ph, pw, z)."""
    return rearrange(latents, "b (h p) (w q) z -> b (h w) (p q z)", p=patch, q=patch)


def unpatchify(tokens: Float[Array, "b n c"], patch: int, rows: int, columns: int) -> Float[Array, "b h w z"]:
    """The inverse of `patchify`, for images of `rows` x `columns` tokens."""
    return rearrange(tokens, "b (h w) (p q z) -> b (h p) (w q) z", h=rows, w=columns, p=patch, q=patch)


def latent_tokens(
    vae_params: Mapping, pixels: Array, config: ModelConfig, noise: Array | None = None
) -> Float[Array, "b m c"]:
    """Clean latent tokens of images [b, h, w, 3], uint8 or in -1..1: posterior means, or samples with this noise."""
    x = pixels.astype(jnp.float32) / 127.5 - 1 if pixels.dtype == jnp.uint8 else pixels
    latent, logvar = VAE(config.vae, config.dtype).apply({"params": vae_params}, x, method=VAE.encode)
    if noise is not None:
        latent = latent + jnp.exp(0.5 * logvar) * noise
    return patchify(normalise(latent, config.vae), config.latent_patch)


def encode_images(vae_params: Mapping, pixels: Mapping, config: ModelConfig) -> Float[Array, "b m c"]:
    """Encodes every image of packed sequences into latent tokens: posterior means, without gradient. Workers
    cannot run a VAE, so packed sequences hold pixels, which are encoded where the model runs.

    Args:
        vae_params: parameters of the VAE.
        pixels: per size bucket uint8 `[b, slots, h, w, 3]`.
        config: the model's configuration.

    Returns:
        Tokens ordered by bucket name, slot, and row-major position: the table that `latent["source"]` indexes.
    """
    tables = []
    for _, images in sorted(pixels.items()):
        b, slots, h, w, _ = images.shape
        if not slots:
            continue
        together = max(n for n in range(1, slots + 1) if slots % n == 0 and (n == 1 or n * h * w <= ENCODE_CHUNK))

        def tokens_of(group: UInt8[Array, "b g h w 3"]) -> Float[Array, "b m c"]:
            tokens = latent_tokens(vae_params, rearrange(group, "b g h w c -> (b g) h w c"), config)
            return rearrange(tokens, "(b g) m c -> b (g m) c", g=group.shape[1])

        groups = rearrange(images, "b (s g) h w c -> s b g h w c", g=together)
        tables.append(rearrange(jax.lax.map(tokens_of, groups), "s b m c -> b (s m) c"))
    return jax.lax.stop_gradient(jnp.concatenate(tables, axis=1))
