"""Writing tokens one by one after a context: the loop, and the choice of one token.

What may be written, and when it ends, is the caller's (`macro/sampling/plan.py` holds plans to their form,
`macro/sampling/bagel/think.py` lets a thought run free). One compiled loop, whatever the length.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from macro.inputs.pieces import Cursor
from macro.models.composer import Cache, Composer, mask_fields
from macro.models.variants import ModelConfig
from macro.sentence.sight import CAUSAL

Choose = Callable[[Array, Array, Any], tuple[Array, Any, Array]]


def decode(
    params: Mapping,
    cache: Cache,
    start: Cursor,
    first: Int[Array, "n"],
    choose: Choose,
    state: Any,
    *,
    config: ModelConfig,
    places: int,
) -> tuple[Int[Array, "n m"], Int[Array, "n"], Float[Array, "n"]]:
    """Continues contexts n times in all, side by side.

    Args:
        params: of the composer.
        cache: the contexts, [layers, rows, p, kv, hd]; n / rows continuations after one another share one.
        start: where the continuations start, integers or `[n, 1]` each; all of one is one causal span.
        first: the first token of each row.
        choose: (logits [n, v], place of the token to choose, state) -> (token [n], state, whether the row ends
            with it [n]). A row that has ended goes on until all have; what it writes then counts for nothing.
        state: of `choose` at first.
        places: m, the most tokens of a row.

    Returns:
        (ids, how many of a row's are its own, their log-likelihood summed, the first token's left out).
    """
    n, m = first.shape[0], places
    layers, _, _, *head = cache["k"].shape
    k, v = (jnp.zeros((layers, n, m, *head), cache[name].dtype) for name in ("k", "v"))
    own = text_meta(start, jnp.broadcast_to(jnp.arange(m), (n, m)))
    model = Composer(config)

    def step(carry):
        written = carry["written"]
        # A place that is not written yet is padding, also the very one that is written in this step.
        meta = mask_fields(own) | {"sample": jnp.where(jnp.arange(m) < written, own["sample"], -1)}
        mine = {"k": carry["k"], "v": carry["v"], "meta": meta}
        text = {name: jax.lax.dynamic_slice_in_dim(values, written, 1, 1) for name, values in own.items()}
        text["ids"] = jax.lax.dynamic_slice_in_dim(carry["ids"], written, 1, 1)
        hidden, new, _ = model.apply({"params": params}, {"text": text}, None, (cache, mine), method=Composer.prefill)
        logits = model.apply({"params": params}, hidden[:, 0], method=Composer.logits)
        token, state, ends = choose(logits, written + 1, carry["state"])
        nats = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=1)[:, 0]
        done = carry["done"]
        return {
            "written": written + 1,
            "ids": jax.lax.dynamic_update_slice_in_dim(carry["ids"], token[:, None], written + 1, 1),
            "k": jax.lax.dynamic_update_slice_in_dim(carry["k"], new["k"], written, 2),
            "v": jax.lax.dynamic_update_slice_in_dim(carry["v"], new["v"], written, 2),
            "state": state,
            "done": done | ends,
            "length": jnp.where(done, carry["length"], written + 2),
            "nats": carry["nats"] + jnp.where(done, 0.0, nats),
        }

    carry = {
        "written": jnp.int32(0),  # tokens whose keys and values are in the buffer
        "ids": jnp.broadcast_to(first[:, None], (n, m)),
        "k": k,
        "v": v,
        "state": state,
        "done": jnp.zeros(n, bool),
        "length": jnp.ones(n, jnp.int32),
        "nats": jnp.zeros(n),
    }

    def goes_on(carry):
        return jnp.any(~carry["done"]) & (carry["written"] + 1 < m)

    carry = jax.lax.while_loop(goes_on, step, carry)
    return carry["ids"], carry["length"], carry["nats"]


def text_meta(start: Cursor, offset: Int[Array, "n m"]) -> dict:
    """Metadata of the text tokens at `start` + offset, all of one span."""
    zeros = jnp.zeros_like(offset)
    return {
        "sample": zeros,
        "order": start.order + offset,
        "span": start.span + zeros,
        "mode": zeros + CAUSAL,
        "rope": start.rope + offset,
    }


def pick_token(key: Array, logits: Float[Array, "v"], temperature: Array, top_p: Array) -> Int[Array, ""]:
    """One token: the likeliest at temperature 0, else drawn from the nucleus. -inf is never drawn."""
    scaled = logits / jnp.maximum(temperature, 1e-6)
    falling = -jnp.sort(-scaled)
    before = jnp.cumsum(jax.nn.softmax(falling)) - jax.nn.softmax(falling)
    # The likeliest token is always in; what comes after it, while less than `top_p` lies before it.
    least = jnp.min(jnp.where(before < jnp.maximum(top_p, 1e-6), falling, jnp.inf))
    drawn = jax.random.categorical(key, jnp.where(scaled >= least, scaled, -jnp.inf))
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits)).astype(jnp.int32)
