"""The diffusion head: noised latents in, velocity out (MUSIC's f2), on the generation expert."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float, Int

from macro.models.variants import ModelConfig
from macro.nn.layers import Dense, position_embedding, time_sinusoids
from macro.parallel.sharding import constrain


class TimeEmbedding(nn.Module):
    """Two-layer MLP over the sinusoids of time, in float32 throughout."""

    width: int

    @nn.compact
    def __call__(self, t: Float[Array, "b n"]) -> Float[Array, "b n d"]:
        hidden = nn.silu(Dense(self.width, name="fc1")(time_sinusoids(t)))
        hidden = constrain(hidden, "batch", "tokens", "width")
        return constrain(Dense(self.width, name="fc2")(hidden), "batch", "tokens", "width")


class DiffusionHead(nn.Module):
    """Embeds latent tokens for the generation expert and projects its output to the velocity."""

    config: ModelConfig

    def setup(self):
        width, dtype = self.config.llm.width, self.config.dtype
        self.latent_in = Dense(width, dtype=dtype)
        self.latent_out = Dense(self.config.latent_channels, dtype=dtype, kernel_init=nn.initializers.zeros_init())
        self.time = TimeEmbedding(width)

    def embed(
        self, x: Float[Array, "b n c"], t: Float[Array, "b n"], position: Int[Array, "b n"]
    ) -> Float[Array, "b n d"]:
        """Embeds latent tokens at time `t` (0 = clean) and `position = row * latent_side + column`."""
        embedded = position_embedding(position, self.config.latent_side, self.config.llm.width)
        return self.latent_in(x) + (self.time(t) + embedded).astype(self.config.dtype)

    def velocity(self, hidden: Float[Array, "b n d"]) -> Float[Array, "b n c"]:
        """Velocity `eps - x0`, float32."""
        return constrain(self.latent_out(hidden), "batch", "tokens", "channels").astype("float32")
