"""Keeping the pictures' tokens that the sentence asks for, between reading a plan and drawing it.

The full contexts' layers are asked twice who looks at the pictures: while the prompt is read, and while the plan is
read (the first candidate's: so one set of keys serves all candidates). Then the tokens are chosen once, and taken out
of the prompt's cache in every context alike, for the pictures stand in the same places of it in all contexts that show
them. All text stays. Positions stay what they were: order and RoPE are in the tokens.
Read next: `macro/models/selection.py` (what is asked and scored), `macro/sampling/pipeline.py`.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from macro.kernels.token_selection.api import TopK, gather_tokens, query_counts, select_top_k, token_budgets
from macro.models.composer import Cache, image_ids
from macro.models.selection import Selection, answered, counted, scores, texts_too
from macro.models.variants import ModelConfig
from macro.nn.asking import Asking
from macro.sampling.contexts import Continuation, Prompt, capacity
from macro.utils.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """What is known before anything is read.

    Attributes:
        selection: the settings.
        picture: int32 `[sentences, n]` picture of each token of the full contexts, -1 for text.
        quotas: int32 `[sentences, pictures]`.
        size: places of the cache that is left.
        layers: of the model.
    """

    selection: Selection
    picture: Array
    quotas: np.ndarray
    size: int
    layers: int

    def of_prompt(self) -> Asking | None:
        """What to ask while the prompt is read."""
        return self._asking(self.picture, 1, 0)

    def of_plan(self, after: Continuation, candidates: int) -> Asking | None:
        """What to ask while the plans are read: each sentence's first. None where there are none."""
        if not after.plan:
            return None
        texts = jnp.full((len(self.quotas), after.plan["ids"].shape[1]), -1, jnp.int32)
        return self._asking(texts, candidates, 1)

    def _asking(self, q_picture: Array, step: int, keys: int) -> Asking | None:
        return self.selection.asking(self.layers, q_picture, [self.picture], [keys], len(self.quotas), step)


def choice_of(selection: Selection | None, prompt: Prompt, config: ModelConfig) -> Choice | None:
    """What `selection` comes to for these prompts; None where there is nothing to leave out.

    Raises:
        UserError: a budget below `floor` tokens for each picture, or layers that the model does not have.
    """
    if selection is None:
        return None
    selection.asked_layers(config.llm.layers)
    picture = image_ids(prompt.streams)[: prompt.sentences]
    count = int(picture.max()) + 1
    if not count:
        return None
    check_budget(selection, count)
    each = token_budgets(np.asarray(counted(picture, count)), selection.keep, selection.budget, selection.floor)
    texts = (prompt.streams["text"]["sample"][: prompt.sentences] >= 0).sum(axis=1)
    size = min(capacity(int((texts + each.sum(axis=1)).max())), picture.shape[1])
    return Choice(selection, picture, each, size, config.llm.layers)


def check_budget(selection: Selection, pictures: int) -> None:
    """Raises UserError for a budget that does not give so many pictures `floor` tokens each."""
    least = pictures * selection.floor
    if selection.budget is not None and selection.budget < least:
        raise UserError(
            f"select.budget={selection.budget}: {pictures} pictures with at least {selection.floor} tokens each "
            f"(select.floor) need {least}"
        )


def selected(choice: Choice, cache: Cache, plans: Cache | None, asked: Sequence[tuple | None], seeds):
    """The prompt's cache with the chosen tokens alone.

    Args:
        cache: of the prompts [layers, contexts x sentences, n, kv, hd].
        plans: of the plans that were read, if there are any, in contexts x sentences x candidates rows.
        asked: what the layers answered in each pass.
        seeds: of each sentence, for the method "random".
    """
    sentences = len(seeds)
    meta = None
    if plans is not None:
        per = plans["k"].shape[1] // cache["k"].shape[1]
        meta = {name: values[: sentences * per : per] for name, values in plans["meta"].items()}
    answers = [answer for answers in asked if answers is not None for answer in answers]
    given = cache, meta, answers, choice.picture, choice.quotas, jnp.stack([jax.random.key(seed) for seed in seeds])
    return _selected(*given, selection=choice.selection, size=choice.size, layers=choice.layers)


@partial(jax.jit, static_argnames=("selection", "size", "layers"))
def _selected(
    cache, plan_meta, answers, picture: Int[Array, "b n"], quotas: Int[Array, "b p"], keys, *, selection, size, layers
) -> Cache:
    sentences, count = quotas.shape
    meta = {name: values[:sentences] for name, values in cache["meta"].items()}
    counts = query_counts(meta, meta, picture, picture)
    if plan_meta is not None:
        counts = counts + query_counts(plan_meta, meta, jnp.full_like(plan_meta["order"], -1), picture)
    asked = answered(selection, answers, layers) if answers else None
    values = cache["v"][:, :sentences]
    score, quotas = scores(selection, asked, counts, values, picture, quotas, keys)
    everything = jnp.full((sentences, 1), picture.shape[1], quotas.dtype)
    numbers = texts_too(picture, meta["sample"], count)
    kept = select_top_k(score, numbers, jnp.concatenate([quotas, everything], axis=1), size)
    contexts = cache["k"].shape[1] // sentences
    kept = TopK(*(jnp.tile(x, (contexts, 1)) for x in kept))
    axes = ("layers", "batch", "tokens", "kv_heads", "head_dim")
    smaller = {name: gather_tokens(cache[name], kept, *axes) for name in ("k", "v")}
    fields = dict(cache["meta"]) | ({"bias": cache["bias"]} if "bias" in cache else {})
    fields = {name: jnp.take_along_axis(values, kept.indices, axis=1) for name, values in fields.items()}
    if "bias" in fields:
        smaller["bias"] = fields.pop("bias")
    fields["sample"] = jnp.where(kept.valid, fields["sample"], -1)
    return smaller | {"meta": fields}
