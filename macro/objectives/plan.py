"""What a plan is scored on: next-token cross-entropy over chain of thought and layout (MUSIC, L1)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def plan_losses(
    logits: Float[Array, "b n v"], text: Mapping
) -> tuple[Float[Array, "b n"], Float[Array, "b n"]]:
    """Cross-entropy of each text token, and its weight.

    Args:
        logits: next-token logits, float32.
        text: the text stream; `labels` -1 marks tokens that predict nothing.

    Returns:
        (nats per token, weight per token), both [b, n]; unlabelled tokens have weight 0.
    """
    labelled = text["labels"] >= 0
    picked = jnp.take_along_axis(logits, jnp.maximum(text["labels"], 0)[..., None], axis=-1)[..., 0]
    nats = jax.nn.logsumexp(logits, axis=-1) - picked
    return nats, jnp.where(labelled, text["weights"], 0.0)
