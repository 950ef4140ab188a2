"""Prefills contexts into KV caches: every image is encoded once, every chunk of a prompt is read once.

    encode     images through ViT and VAE, once for all contexts that contain them
    prefill    the chunks of a `Prompt` (`macro/sampling/contexts.py`), each after its parent, sentences as rows
    gather     the caches of several contexts as one batch, context by context
    read_plans each candidate's plan after the prompt, in every context that reads plans; prompts are not copied

A cache is `k`, `v` [layers, rows, n, kv_heads, head_dim] and `meta` [rows, n], whose padding has `segment_ids` -1.
Read next: `macro/sampling/denoise.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from macro.models.composer import Cache, Composer, index_cache
from macro.models.vae import latent_tokens
from macro.models.variants import ModelConfig
from macro.nn.attention_probe import AttentionProbe
from macro.parallel.sharding import constrain, join_streams
from macro.sampling.contexts import LEAST_CAPACITY, PADDING, Prompt, capacity
from macro.sentence.attention_mask import MASK_FIELDS

_CACHE_AXES = ("layers", "batch", "tokens", "kv_heads", "head_dim")


def names_of(prompt: Prompt, number: int | None) -> np.ndarray:
    """Names int32[s, n] of the tokens in the cache of a chunk, in cache order."""
    if number is None:
        return np.full((prompt.sentences, 0), PADDING, np.int32)
    chunk = prompt.chunks[number]
    own = join_streams(*(chunk.names.get(stream) for stream in ("text", "vision", "latent")))
    return np.concatenate([names_of(prompt, chunk.parent), own], axis=1)


# ---- images ----


@partial(jax.jit, static_argnames="config")
def embed_vision(params: Mapping, vision: Mapping, *, config: ModelConfig) -> Float[Array, "s n d"]:
    """The ViT tokens of the images, before layout binding."""
    return Composer(config).apply({"params": params}, vision, method=Composer.embed_vision)


@partial(jax.jit, static_argnames="config")
def encode_latents(
    vae: Mapping, pixels: Array, noise: Float[Array | np.ndarray, "1 h2 w2 z"] | None, *, config: ModelConfig
) -> Float[Array, "n c"]:
    """As `latent_tokens`, for one image [h, w, 3]."""
    return latent_tokens(vae, pixels[None], config, noise)[0]


def encode(
    params: Mapping, prompt: Prompt, noise: Sequence[Sequence[Array | np.ndarray]] | None, config: ModelConfig
) -> tuple[Array | None, Array | None]:
    """ViT tokens [s, n, d] and clean VAE tokens [s, n, c] of the sentences' images; None without any.

    Args:
        params: `composer` and `vae`.
        noise: per sentence and image, to sample the posterior with; None: use its mean.
    """
    vision = None if prompt.vision is None else embed_vision(params["composer"], prompt.vision, config=config)
    rows = []
    for number, images in enumerate(prompt.latents):
        drawn = [None] * len(images) if noise is None else noise[number]
        encoded = [encode_latents(params["vae"], x, eps, config=config) for x, eps in zip(images, drawn, strict=True)]
        rows.append(jnp.concatenate(encoded) if encoded else jnp.zeros((0, config.latent_channels)))
    most = max(map(len, rows))
    if not most:
        return vision, None
    return vision, jnp.stack([jnp.pad(row, ((0, capacity(most) - len(row)), (0, 0))) for row in rows])


# ---- prompts ----


@partial(jax.jit, static_argnames="config")
def prefill(
    params: Mapping,
    cache: Cache | None,
    streams: Mapping,
    vision: Float[Array, "s nv d"] | None,
    latents: Float[Array, "s nl c"] | None,
    probe: AttentionProbe | None = None,
    *,
    config: ModelConfig,
) -> tuple[Cache, tuple[Array, ...] | None]:
    """Reads a chunk after `cache`.

    Args:
        params: of the composer.
        streams: of a `Chunk`; `index` points into `vision` and `latents`.

    Returns:
        The cache with the chunk's tokens appended, and the result of the probe.
    """

    def picked(encoded: Array, stream: str) -> Array:
        return jnp.take_along_axis(encoded, jnp.asarray(streams[stream]["index"])[..., None], axis=1)

    streams = {name: dict(fields) for name, fields in streams.items()}
    if "vision" in streams:
        streams["vision"]["tokens"] = picked(vision, "vision")
    x = picked(latents, "latent") if "latent" in streams else None
    caches = () if cache is None else (cache,)
    _, new, found = Composer(config).apply({"params": params}, streams, x, caches, probe, method=Composer.prefill)
    return (new if cache is None else appended(cache, new)), found


def appended(cache: Cache, new: Cache) -> Cache:
    """The two caches concatenated."""
    whole = {part: jnp.concatenate([cache[part], new[part].astype(cache[part].dtype)], axis=2) for part in ("k", "v")}
    whole = {part: constrain(x, *_CACHE_AXES) for part, x in whole.items()}
    meta = {name: jnp.concatenate([cache["meta"][name], new["meta"][name]], axis=1) for name in MASK_FIELDS}
    return whole | {"meta": meta}


def read_prompt(
    params: Mapping,
    prompt: Prompt,
    config: ModelConfig,
    noise: Sequence[Sequence[Array | np.ndarray]] | None = None,
    probes: Mapping[int, AttentionProbe] | None = None,
    before: Cache | None = None,
) -> tuple[list[Cache], dict[int, tuple[Array, ...]]]:
    """The cache after each chunk of the prompt, and the results of the chunks' probes.

    Args:
        params: `composer` and `vae`.
        noise: see `encode`.
        before: cache of what precedes the prompt; the returned caches include it.
    """
    vision, latents = encode(params, prompt, noise, config)
    caches, found = [], {}
    for number, chunk in enumerate(prompt.chunks):
        parent = before if chunk.parent is None else caches[chunk.parent]
        probe = (probes or {}).get(number)
        cache, scores = prefill(params["composer"], parent, chunk.streams, vision, latents, probe, config=config)
        caches.append(cache)
        if probe is not None:
            found[number] = scores
    return caches, found


def gathered(caches: Sequence[Cache | None], rows: int, config: ModelConfig) -> Cache:
    """The caches of several contexts (None: empty) as one batch, ordered by context.

    Shorter ones are padded; a single one is not copied.
    """
    most = max([cache["k"].shape[2] for cache in caches if cache is not None], default=LEAST_CAPACITY)
    alike = [_padded(cache, rows, most, config) for cache in caches]
    if len(alike) == 1:
        return alike[0]
    whole = {part: jnp.concatenate([cache[part] for cache in alike], axis=1) for part in ("k", "v")}
    meta = {name: jnp.concatenate([cache["meta"][name] for cache in alike]) for name in MASK_FIELDS}
    return {part: constrain(x, *_CACHE_AXES) for part, x in whole.items()} | {"meta": meta}


def _padded(cache: Cache | None, rows: int, size: int, config: ModelConfig) -> Cache:
    if cache is None:
        llm = config.llm
        nothing = jnp.zeros((llm.layers, rows, 0, llm.kv_heads, llm.head_dim), config.dtype)
        cache = {"k": nothing, "v": nothing, "meta": dict.fromkeys(MASK_FIELDS, jnp.zeros((rows, 0), jnp.int32))}
    more = size - cache["k"].shape[2]
    if not more:
        return cache
    longer = {part: jnp.pad(cache[part], ((0, 0), (0, 0), (0, more), (0, 0), (0, 0))) for part in ("k", "v")}
    return longer | {"meta": {n: jnp.pad(x, ((0, 0), (0, more)), constant_values=-1) for n, x in cache["meta"].items()}}


# ---- plans ----


@partial(jax.jit, static_argnames=("config", "contexts", "kept", "candidates"))
def read_plans(
    params: Mapping,
    cache: Cache,
    text: Mapping,
    probe: AttentionProbe | None = None,
    *,
    config: ModelConfig,
    contexts: int,
    kept: tuple[int, ...],
    candidates: int,
) -> tuple[Cache, Float[Array, " n"], tuple[Array, ...] | None]:
    """Prefills each candidate's plan in every context that reads plans.

    Args:
        params: of the composer.
        cache: the prompts [layers, contexts x sentences, p, kv, hd].
        text: plans as `contexts.Continuation` holds them, [kept x sentences x candidates, m].
        contexts: number of contexts. kept: indices of those that read the plan, the full one first.
        candidates: number of plans per sentence.

    Returns:
        The cache of the plans alone, rows contexts x sentences x candidates; the score of each plan, its mean
        log-likelihood per token in nats; the result of the probe.
    """
    sentences = cache["k"].shape[1] // contexts

    def rows_of(block: int) -> Array:
        return jnp.concatenate([number * block + jnp.arange(block) for number in kept])

    prompts, rows = rows_of(sentences), rows_of(sentences * candidates)
    model = Composer(config)
    given = {"text": text}, None, (index_cache(cache, prompts),), probe
    hidden, new, found = model.apply({"params": params}, *given, method=Composer.prefill)
    count = contexts * sentences * candidates
    plans = {}
    for name in ("k", "v"):
        layers, _, *shape = new[name].shape
        plans[name] = jnp.zeros((layers, count, *shape), new[name].dtype).at[:, rows].set(new[name])
    empty = jnp.full((count, text["ids"].shape[1]), -1)
    plans["meta"] = {name: empty.at[rows].set(values) for name, values in new["meta"].items()}
    full = slice(0, sentences * candidates)

    def score(row):  # one candidate at a time: logits of a whole plan are large
        logits = model.apply({"params": params}, row[0], method=Composer.logits)
        chosen = jnp.take_along_axis(logits, jnp.maximum(row[1], 0)[:, None], axis=-1)[:, 0]
        nats = jnp.where(row[1] >= 0, chosen - jax.nn.logsumexp(logits, axis=-1), 0)
        return jnp.sum(nats) / jnp.sum(row[1] >= 0)

    return plans, jax.lax.map(score, (hidden[full], jnp.asarray(text["labels"])[full])), found
