"""Writing plans token by token, and reading plans that are there already.

    prefill   the prompt's keys and values, once, in every context
    write     the planner continues the full context, N candidates side by side, held to `rules.py`
    read      any plans (just written, or a user's) after the prompt, in every context that keeps plans

A prompt's keys and values are never copied: all its candidates attend to the same ones (`macro/nn/mot.py`).

A plan is always *read* before it is drawn, from its canonical tokens: so the picture depends on the plan as
data alone (with a selection, on the first candidate's too, see `select.py`), and handing a written plan.json back in
gives the same picture. The score of a plan is its mean log-likelihood in nats per token, over every token after [bos],
under the model as it is: temperature 1, all of the vocabulary (it is minus the training loss). Written tokens are drawn
from

    softmax(logits / temperature) over the fewest tokens that hold `top_p` of the mass     (0 = the likeliest)

Read next: `macro/sampling/decode.py`, `macro/sampling/rules.py`, `macro/sampling/draw.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from macro.inputs.pieces import Cursor
from macro.models.composer import Cache, Composer, index_cache
from macro.models.vae import encode_images
from macro.models.variants import ModelConfig
from macro.nn.asking import Asking
from macro.sampling.decode import decode, pick_token
from macro.sampling.rules import CELL, CLOSED, SLACK


@dataclasses.dataclass(frozen=True)
class Writing:
    """How freely a plan is written.

    Attributes:
        words, words_top_p: temperature of the chain of thought, and its share of mass.
        cells, cells_top_p: the same for the layout.
        limit: the most tokens of the chain of thought; then it is brought to its end.
    """

    words: float = 0.7
    words_top_p: float = 0.9
    cells: float = 0.7
    cells_top_p: float = 0.9
    limit: int = 160


@partial(jax.jit, static_argnames="config")
def prefill(
    params: Mapping,
    vae: Mapping,
    streams: Mapping,
    pixels: Mapping,
    asking: Asking | None = None,
    *,
    config: ModelConfig,
) -> tuple[Cache, tuple[Array, ...] | None]:
    """Reads prompts in all contexts (`contexts.Prompt`); clean copies of pictures go through the VAE.

    Returns:
        The cache, and what was asked on the way (`macro/nn/asking.py`).
    """
    x = None
    if "latent" in streams:
        x = jnp.take_along_axis(encode_images(vae, pixels, config), streams["latent"]["source"][..., None], axis=1)
    given = streams, x, (), asking
    return Composer(config).apply({"params": params}, *given, method=Composer.prefill)[1:]


def write(
    params: Mapping,
    cache: Cache,
    starts: Sequence[Cursor],
    rules: Mapping,
    keys: Array,
    *,
    config: ModelConfig,
    writing: Writing,
) -> tuple[Int[Array, "n m"], Int[Array, "n"], Float[Array, "n"]]:
    """Writes one plan per key after the prompts.

    Args:
        params: of the composer.
        cache: the full context of each prompt, [layers, prompts, p, kv, hd].
        starts: where the plans start there.
        rules: of n rows, see `rules.rules_of_rows`.
        keys: n random keys, n / prompts after one another for each prompt; a candidate depends on its own only.

    Returns:
        (tokens from bos to eos, then padding; how many; score).
    """
    freedom = dataclasses.asdict(writing)
    limit = freedom.pop("limit")  # sets the buffer's size; everything else may change without compiling
    start = jax.tree.map(lambda *each: np.repeat(each, len(keys) // len(starts))[:, None], *starts)
    return _write(params, cache, start, rules, keys, freedom, config=config, limit=limit)


@partial(jax.jit, static_argnames=("config", "limit"))
def _write(params, cache, start, rules, keys, freedom, *, config, limit):
    places = rules["prefix"].size + limit + SLACK + rules["tail"].shape[1]

    def step(logits, place, state):
        token, count, reached = _next_token(logits, place, state, rules, keys, freedom, limit)
        return token, {"count": count, "tail": reached}, reached == rules["ends"]

    zeros = jnp.zeros(keys.shape[0], jnp.int32)
    state = {
        "count": zeros,  # characters of </think> written so far
        "tail": zeros - 1,  # tokens of the tail written so far, -1 in the chain of thought
    }
    first = zeros + rules["prefix"][0]
    ids, length, nats = decode(params, cache, start, first, step, state, config=config, places=places)
    return ids, length, nats / (length - 1)


def _next_token(logits, place, state, rules, keys, freedom, limit):
    """Each candidate's next token, and how far it then is in `</think>` and in the tail."""
    prefix, count, tail = rules["prefix"], state["count"], state["tail"]
    in_words = tail < 0
    moves = rules["moves"][jnp.minimum(count, CLOSED - 1)]
    full = place - prefix.size >= limit
    words = (moves >= 0) & (~full | (moves > count[:, None]))
    asked = jnp.take_along_axis(rules["tail"], jnp.clip(tail, 0, rules["ends"] - 1)[:, None], axis=1)[:, 0]
    token = jax.vmap(pick_token)(
        jax.vmap(jax.random.fold_in, (0, None))(keys, place),
        jnp.where(jnp.where(in_words[:, None], words, rules["cells"]), logits, -jnp.inf),
        jnp.where(in_words, freedom["words"], freedom["cells"]),
        jnp.where(in_words, freedom["words_top_p"], freedom["cells_top_p"]),
    )
    token = jnp.where(in_words | (asked == CELL), token, asked)
    given = place < prefix.size
    token = jnp.where(given, prefix[jnp.minimum(place, prefix.size - 1)], token)
    reached = jnp.take_along_axis(moves, token[:, None], axis=1)[:, 0].astype(jnp.int32)
    count = jnp.where(in_words & ~given, reached, count)
    after = jnp.where(in_words, jnp.where(count == CLOSED, 0, -1), tail + 1)
    return token, count, jnp.where(given, -1, after)


@partial(jax.jit, static_argnames=("config", "contexts", "kept", "candidates"))
def read(
    params: Mapping,
    cache: Cache,
    text: Mapping,
    asking: Asking | None = None,
    *,
    config: ModelConfig,
    contexts: int,
    kept: tuple[int, ...],
    candidates: int,
) -> tuple[Cache, Float[Array, "n"], tuple[Array, ...] | None]:
    """Reads each candidate's plan in every context that keeps it.

    Args:
        params: of the composer.
        cache: the prompts [layers, contexts x sentences, p, kv, hd].
        text: plans as `contexts.Continuation` packs them, [kept x sentences x candidates, m].
        asking: what to find out on the way, see `macro/nn/asking.py`.
        contexts: how many there are. kept: those that keep the plan, the full one first.
        candidates: how many plans each sentence has.

    Returns:
        The cache of the plans alone in contexts x sentences x candidates rows; the score of each plan; what was asked.
    """
    sentences = cache["k"].shape[1] // contexts

    def rows_of(block: int) -> Array:
        return jnp.concatenate([number * block + jnp.arange(block) for number in kept])

    prompts, rows = rows_of(sentences), rows_of(sentences * candidates)
    model = Composer(config)
    given = {"text": text}, None, (index_cache(cache, prompts),), asking
    hidden, new, asked = model.apply({"params": params}, *given, method=Composer.prefill)
    count = contexts * sentences * candidates
    plans = {}
    for name in ("k", "v"):
        layers, _, *shape = new[name].shape
        plans[name] = jnp.zeros((layers, count, *shape), new[name].dtype).at[:, rows].set(new[name])
    empty = jnp.full((count, text["ids"].shape[1]), -1)
    plans["meta"] = {name: empty.at[rows].set(values) for name, values in new["meta"].items()}
    mine = slice(0, sentences * candidates)
    logits = model.apply({"params": params}, hidden[mine], method=Composer.logits)
    return plans, _score(logits, text["labels"][mine]), asked


def _score(logits: Float[Array, "n m v"], labels: Int[Array, "n m"]) -> Float[Array, "n"]:
    """Mean log-likelihood of the labelled tokens."""
    nats = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(labels >= 0, nats, 0), axis=1) / jnp.sum(labels >= 0, axis=1)
