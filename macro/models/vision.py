"""The vision encoder: a SigLIP transformer over packed patches, and the connector to the language model.

NaViT packing: the patches of many images of any size form one stream, and attention stays inside each image. A patch
is embedded as a linear map of its pixels plus a learned embedding of its position, `row * side + column`, so position
embeddings are never interpolated.

Vision:     patches -> pre-LN transformer blocks (gelu_tanh MLP, biases everywhere) -> layer norm
Connector:  vision width -> language width, two layers

The layers are stacked (one `nn.scan`): parameters under `layers` carry a leading layer axis.
Read next: `macro/models/composer.py`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from macro.kernels.attention.api import attention
from macro.models.variants import VisionConfig
from macro.nn.layers import ATTENTION_OUT, LORA, Dense, apply_remat
from macro.parallel.sharding import constrain
from macro.sentence.attention_mask import NOISE


class VisionBlock(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)). Written for `nn.scan`: returns (x, None)."""

    config: VisionConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], meta: dict) -> tuple[Float[Array, "b n d"], None]:
        config = self.config
        heads, head_dim = config.heads, config.width // config.heads

        def dense(width, name):
            return Dense(width, dtype=self.dtype, name=name)

        def norm(name):
            return nn.LayerNorm(epsilon=config.eps, use_fast_variance=False, dtype=self.dtype, name=name)

        y = norm("norm1")(x)
        q, k, v = (dense(config.width, name)(y).reshape(*y.shape[:2], heads, head_dim) for name in "qkv")
        q, k, v = (constrain(part, "batch", "tokens", "heads", "head_dim") for part in (q, k, v))
        y = checkpoint_name(attention(q, k, v, meta, meta), ATTENTION_OUT).reshape(y.shape)
        x = x + dense(config.width, "out")(y)
        y = nn.gelu(dense(config.mlp, "fc1")(norm("norm2")(x)), approximate=True)
        y = constrain(y, "batch", "tokens", "mlp")
        return constrain(x + dense(config.width, "fc2")(y), "batch", "tokens", "width"), None


class Vision(nn.Module):
    """Packed images to features.

    Args of a call:
        patches: pixels in -1..1, `patch * patch * 3` values a patch in (row, column, channel) order.
        position: `row * side + column` of each patch inside its image.
        segment_ids: packed sample of a patch, -1 = padding.
        block_id: block of the patch's image; patches attend to those with the same two ids.

    Returns:
        Features `[b, n, width]`. Those of padding are finite but meaningless.
    """

    config: VisionConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        patches: Float[Array, "b n c"],
        position: Int[Array, "b n"],
        segment_ids: Int[Array, "b n"],
        block_id: Int[Array, "b n"],
    ) -> Float[Array, "b n d"]:
        config = self.config
        table = self.param("position_embedding", nn.initializers.normal(0.02), (config.side**2, config.width))
        x = Dense(config.width, dtype=self.dtype, name="patch_embedding")(patches.astype(self.dtype))
        places = constrain(table, None, None)[position].astype(self.dtype)  # a replicated table: a few megabytes
        x = constrain(x + places, "batch", "tokens", "width")

        # In the attention mask a NOISE block attends to itself and no other block attends to it; with all token
        # indices equal this keeps packed images apart.
        zeros = jnp.zeros_like(segment_ids)
        meta = {"segment_ids": segment_ids, "block_id": block_id, "token_index": zeros, "mask_mode": zeros + NOISE}
        layers = nn.scan(
            apply_remat(VisionBlock, self.remat),
            variable_axes={"params": 0, LORA: 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=config.layers,
        )
        x, _ = layers(config, self.dtype, name="layers")(x, meta)
        return nn.LayerNorm(epsilon=config.eps, use_fast_variance=False, dtype=self.dtype, name="post_norm")(x)


class Connector(nn.Module):
    """Vision features to the language model's width: fc2(gelu_tanh(fc1(x)))."""

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n d"]:
        x = nn.gelu(Dense(self.width, dtype=self.dtype, name="fc1")(x), approximate=True)
        x = constrain(x, "batch", "tokens", "width")
        return constrain(Dense(self.width, dtype=self.dtype, name="fc2")(x), "batch", "tokens", "width")
