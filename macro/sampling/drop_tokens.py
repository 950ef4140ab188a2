"""Token selection in sampling: image tokens that score low are removed from the cache of every context.

The full context is probed during the prefill of the prompt and of the plan (the first candidate's, so that all
candidates share one set of keys). Tokens are then selected once and the others removed from every context's cache; a
token has the same name in all contexts (`Prompt`). All text stays, and order and position ids do not change.
`macro/models/token_selection.py` describes probes and scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from macro.kernels.token_selection.api import TopK, gather_tokens, query_counts, select_top_k
from macro.models.composer import Cache
from macro.models.token_selection import TokenSelection, image_counts, layer_mean, scores
from macro.models.variants import ModelConfig
from macro.nn.attention_probe import AttentionProbe
from macro.sampling.contexts import PADDING, TEXT, Continuation, Prompt, capacity, image_of
from macro.sampling.prefill import names_of


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The selection of a prompt, as far as it is known before the prefill.

    Attributes:
        names: int32[s, n], names of the full context's tokens.
        quotas: int32[s, images], tokens to keep of each image.
        layers: number of layers of the model.
    """

    selection: TokenSelection
    prompt: Prompt
    names: np.ndarray
    quotas: np.ndarray
    layers: int

    def probes(self) -> dict[int, AttentionProbe]:
        """The probe for each chunk of the full context."""
        found = {}
        for number in self.prompt.path("full"):
            before = names_of(self.prompt, self.prompt.chunks[number].parent)
            old, new = (jnp.asarray(image_of(names)) for names in np.split(
                names_of(self.prompt, number), [before.shape[1]], axis=1))  # fmt: skip
            keys = [new, old] if before.shape[1] else [new]
            found[number] = self.selection.probe(self.layers, new, keys, range(len(keys)), rows=len(self.quotas))
        return {number: probe for number, probe in found.items() if probe is not None}

    def plan_probe(self, after: Continuation, candidates: int) -> AttentionProbe | None:
        """The probe for each sentence's first plan; None without plans."""
        if not after.plan:
            return None
        texts = jnp.full((len(self.quotas), after.plan["ids"].shape[1]), TEXT, jnp.int32)
        images = jnp.asarray(image_of(self.names))
        return self.selection.probe(self.layers, texts, [images], [1], rows=len(self.quotas), step=candidates)

    def size(self, names: np.ndarray) -> int:
        """The size, after selection, of a cache whose tokens have these names."""
        images = image_of(names)
        left = (names == TEXT).sum(axis=1)
        for number in range(self.quotas.shape[1]):
            left = left + np.where((images == number).any(axis=1), self.quotas[:, number], 0)
        return min(capacity(int(left.max())), names.shape[1])


def choice_of(selection: TokenSelection | None, prompt: Prompt, config: ModelConfig) -> Choice | None:
    """The selection applied to a prompt; None if nothing is to be dropped.

    Raises:
        UserError: the budget is below `min_tokens` per image, or the model lacks a probed layer.
    """
    if selection is None:
        return None
    selection.probed_layers(config.llm.layers)
    names = names_of(prompt, prompt.contexts["full"])
    images = image_of(names)
    count = int(images.max(initial=-1)) + 1
    if not count:
        return None
    selection.check_budget(count)
    quotas = np.asarray(selection.quotas(image_counts(jnp.asarray(images), count)))
    return Choice(selection, prompt, names, quotas, config.llm.layers)


def drop_tokens(
    choice: Choice,
    caches: Mapping[str, Cache | None],
    plans: Cache | None,
    found: Mapping[int, tuple[Array, ...]],
    plan_found: tuple[Array, ...] | None,
    seeds: Sequence[int],
) -> tuple[dict[str, Cache | None], dict[str, np.ndarray]]:
    """The caches reduced to text and the selected tokens, and the names of what is left.

    Args:
        caches: of the distinct contexts [layers, s, n, kv, hd].
        plans: cache of the plans, if any, rows contexts x sentences x candidates.
        found, plan_found: results of the probes.
        seeds: of each sentence, for the method "random".
    """
    prompt, sentences = choice.prompt, len(seeds)
    meta = None
    if plans is not None:
        per = plans["k"].shape[1] // (sentences * len(caches))
        meta = {name: values[: sentences * per : per] for name, values in plans["meta"].items()}
    total = None
    for number in prompt.path("full"):
        if number in found:
            new, *old = found[number]
            total = new if not old else jnp.concatenate([total + old[0], new], axis=3)
    if plan_found is not None:
        total = total + plan_found[0]
    images = jnp.asarray(image_of(choice.names))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    given = caches["full"], meta, total, images, jnp.asarray(choice.quotas), keys
    kept = _choose(*given, selection=choice.selection, layers=choice.layers, size=int(choice.quotas.sum(1).max()))
    indices, valid = map(np.asarray, kept)
    chosen = [names[row[ok]] for names, row, ok in zip(choice.names, indices, valid, strict=True)]
    left, names = {}, {}
    for name, cache in caches.items():
        if cache is None:
            left[name], names[name] = None, names_of(prompt, None)
            continue
        left[name], names[name] = _left(cache, names_of(prompt, prompt.contexts[name]), chosen, choice)
    return left, names


@partial(jax.jit, static_argnames=("selection", "layers", "size"))
def _choose(cache, plan_meta, found, images, quotas, keys, *, selection, layers, size) -> TopK:
    counts = query_counts(cache["meta"], cache["meta"], images, images)
    if plan_meta is not None:
        counts = counts + query_counts(plan_meta, cache["meta"], jnp.full_like(plan_meta["token_index"], TEXT), images)
    measured = None if found is None else layer_mean(selection, [found], layers)
    score, quotas = scores(selection, measured, counts, cache["v"], images, quotas, keys)
    return select_top_k(score, images, quotas, size)


def _left(cache: Cache, names: np.ndarray, chosen: Sequence[np.ndarray], choice: Choice) -> tuple[Cache, np.ndarray]:
    """The cache reduced to its text and the chosen tokens, and their names."""
    size = choice.size(names)
    places = [np.flatnonzero((row == TEXT) | np.isin(row, stay)) for row, stay in zip(names, chosen, strict=True)]
    indices = np.stack([np.pad(row, (0, size - len(row))) for row in places]).astype(np.int32)
    valid = np.arange(size) < np.array([[len(row)] for row in places])
    kept = TopK(jnp.asarray(indices), jnp.asarray(valid))
    axes = ("layers", "batch", "tokens", "kv_heads", "head_dim")
    smaller = {part: gather_tokens(cache[part], kept, *axes) for part in ("k", "v")}
    meta = {name: jnp.take_along_axis(values, kept.indices, axis=1) for name, values in cache["meta"].items()}
    meta["segment_ids"] = jnp.where(kept.valid, meta["segment_ids"], -1)
    return smaller | {"meta": meta}, np.where(valid, np.take_along_axis(names, indices, axis=1), PADDING)
