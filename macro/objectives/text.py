"""The text loss: next-token cross-entropy over chain of thought and layout (MUSIC, L1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

# Logits of a sequence that exist at a time: 32,768 tokens with 152,064 ids each would take 20 GB.
LOGITS = 1 << 27


def text_losses(
    logits_of: Callable[[Array], Array], hidden: Float[Array, "b n d"], text: Mapping, vocab: int
) -> tuple[Float[Array, "b n"], Float[Array, "b n"]]:
    """Cross-entropy of each text token, and its weight.

    Args:
        logits_of: hidden states [b, m, d] to next-token logits [b, m, v], float32. For long text
            streams it is called on a part at a time, and again in the backward pass.
        hidden: final hidden states of the text stream.
        text: the text stream; `labels` is -1 for tokens without a label.
        vocab: v.

    Returns:
        (nats per token, weight per token), both [b, n]; unlabelled tokens have weight 0.
    """
    n = hidden.shape[1]
    parts = min(p for p in range(1, n + 1) if n % p == 0 and (p == n or n // p * vocab <= LOGITS))

    def nats_of(part: tuple[Array, Array]) -> Float[Array, "b m"]:
        return _cross_entropy(logits_of(part[0]), part[1])

    if parts == 1:
        nats = nats_of((hidden, text["labels"]))
    else:
        # Every p-th token, not runs of tokens: so each part is spread over all devices if tokens are sharded.
        split = (
            rearrange(hidden, "b (m p) d -> p b m d", p=parts),
            rearrange(text["labels"], "b (m p) -> p b m", p=parts),
        )
        nats = rearrange(jax.lax.map(jax.checkpoint(nats_of), split), "p b m -> b (m p)")
    return nats, text_weights(text)


def text_weights(text: Mapping) -> Float[Array, "b n"]:
    """The loss weight of each text token: 0 without a label."""
    return jnp.where(text["labels"] >= 0, text["weights"], 0.0)


def _cross_entropy(logits: Float[Array, "b m v"], labels: Int[Array, "b m"]) -> Float[Array, "b m"]:
    picked = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked
