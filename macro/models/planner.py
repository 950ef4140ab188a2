"""The planner: reads a sentence and writes its plan (MUSIC's f1), on the understanding expert.

It turns text ids and image patches into understanding tokens and final hidden states into next-token logits.
The layers in between are shared with the diffusion head and are in `macro/nn/mot.py`.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from macro.models.variants import ModelConfig
from macro.models.vision import Connector, Vision
from macro.nn.layers import position_embedding


class Planner(nn.Module):
    """The embeddings and the language head of the understanding expert."""

    config: ModelConfig

    def setup(self):
        llm = self.config.llm
        init = nn.initializers.normal(0.02)
        self.embed = self.param("embed", init, (llm.vocab, llm.width))
        self.head = self.param("head", init, (llm.vocab, llm.width))
        self.vision = Vision(self.config.vision, self.config.dtype, self.config.remat)
        self.connector = Connector(llm.width, self.config.dtype)

    def embed_text(self, ids: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        """Embeddings of token ids, in the activations' dtype."""
        return jnp.take(self.embed, ids, axis=0).astype(self.config.dtype)

    def embed_vision(self, vision: dict) -> Float[Array, "b n d"]:
        """Vision tokens: encoder, then connector, plus the fixed 2-D position embedding.

        Args:
            vision: `patches` [b, n, p*p*3] in -1..1, `position`, `segment_ids`, `block_id` [b, n].
        """
        encoded = self.vision(vision["patches"], vision["position"], vision["segment_ids"], vision["block_id"])
        tokens = self.connector(encoded)
        position = position_embedding(vision["position"], self.config.vision.side, self.config.llm.width)
        return tokens.astype(self.config.dtype) + position.astype(self.config.dtype)

    def logits(self, hidden: Float[Array, "*shape d"]) -> Float[Array, "*shape v"]:
        """Next-token logits, float32."""
        head = self.head.astype(hidden.dtype)
        return jnp.einsum("...d,vd->...v", hidden, head, preferred_element_type=jnp.float32)
