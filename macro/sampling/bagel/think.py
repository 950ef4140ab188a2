"""A thought before a picture: free text after the full context, until eos or the limit.

Read next: `macro/sampling/decode.py`.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from macro.models.variants import ModelConfig
from macro.sampling.bagel.contexts import Context
from macro.sampling.decode import decode, pick_token

# What the released model was trained to take as the sign to think before it draws.
SYSTEM = (
    "You should first think about the planning process in the mind and then generate the image. \n"
    "The planning process is enclosed within <think> </think> tags, i.e. "
    "<think> planning process here </think> image here"
)


def think(
    params: Mapping,
    context: Context,
    tokenizer,
    key: Array,
    *,
    config: ModelConfig,
    temperature: float,
    limit: int,
) -> tuple[list[int], float]:
    """Writes a thought after `context`, which stays as it is.

    Args:
        params: of the composer.
        key: of sampling.
        temperature: 0 takes the likeliest token each time.
        limit: the most tokens, with bos; only a different limit compiles anew.

    Returns:
        (ids without bos and eos, mean log-likelihood of what was written, nats a token).
    """
    ids, length, nats = _think(
        params,
        context.cache,
        context.end,
        jnp.int32(tokenizer.bos),
        jnp.int32(tokenizer.eos),
        key,
        jnp.float32(temperature),
        config=config,
        limit=limit,
    )
    written = np.asarray(ids)[0, 1 : int(length[0])].tolist()
    if written and written[-1] == tokenizer.eos:
        return written[:-1], float(nats[0]) / len(written)
    return written, float(nats[0]) / len(written)


@partial(jax.jit, static_argnames=("config", "limit"))
def _think(params, cache, start, bos, eos, key, temperature, *, config, limit):
    def choose(logits, place, state):
        keys = jax.random.fold_in(key, place)[None]
        token = jax.vmap(pick_token, (0, 0, None, None))(keys, logits, temperature, jnp.float32(jnp.inf))
        return token, state, token == eos

    return decode(params, cache, start, bos[None], choose, None, config=config, places=limit)
