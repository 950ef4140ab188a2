"""Selection of pictures' tokens in BAGEL's mode: chosen in `full` after all is read, taken out of every context.

Contexts hold the same tokens in different places, so what stays is told by the tokens' names (`Context.tokens`).
What is asked, scored and kept is that of the planned mode (`macro/models/selection.py`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from macro.kernels.token_selection.api import TopK, gather_tokens, select_top_k, token_budgets
from macro.models.selection import Selection, counted, scores
from macro.sampling.bagel.contexts import NOBODY, WORD, Context, Contexts, picture_of
from macro.sampling.contexts import capacity
from macro.sampling.select import check_budget


def select(contexts: Contexts, selection: Selection, seed: int) -> None:
    """Leaves the chosen tokens in each context; nothing happens where there are no pictures.

    Raises:
        UserError: a budget that does not give every picture `floor` tokens.
    """
    count, full = contexts.pictures, contexts.of["full"]
    if not count:
        return
    check_budget(selection, count)
    picture = jnp.asarray(picture_of(full.tokens), jnp.int32)[None]
    share = token_budgets(counted(picture, count), selection.keep, selection.budget, selection.floor)
    heard = full.heard / len(selection.asked_layers(contexts.config.llm.layers))
    key = jax.random.key(seed)[None]
    score, share = scores(selection, heard[None], full.counts[None], full.cache["v"], picture, share, key)
    kept = select_top_k(score, picture, share, capacity(int(share.sum())))
    stay = full.tokens[np.asarray(kept.indices[0])[np.asarray(kept.valid[0])]]
    smaller = {context: _left(context, stay) for context in dict.fromkeys(contexts.of.values())}
    contexts.of = {name: smaller[context] for name, context in contexts.of.items()}


def _left(context: Context, stay: np.ndarray) -> Context:
    """The context with its words and these tokens alone."""
    places = np.flatnonzero((context.tokens == WORD) | np.isin(context.tokens, stay))
    size = min(capacity(len(places)), len(context.tokens))
    indices = np.pad(places, (0, size - len(places)))
    valid = np.arange(size) < len(places)
    kept = TopK(jnp.asarray(indices, jnp.int32)[None], jnp.asarray(valid)[None])
    axes = ("layers", "batch", "tokens", "kv_heads", "head_dim")
    cache = {part: gather_tokens(context.cache[part], kept, *axes) for part in ("k", "v")}
    meta = {name: jnp.where(kept.valid, values[:, indices], -1) for name, values in context.cache["meta"].items()}
    tokens = np.where(valid, context.tokens[indices], NOBODY)
    heard, counts = context.heard[:, indices], context.counts[:, indices]
    left = {"cache": cache | {"meta": meta}, "used": size, "tokens": tokens, "heard": heard, "counts": counts}
    return dataclasses.replace(context, **left)
