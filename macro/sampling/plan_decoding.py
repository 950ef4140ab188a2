"""Decoding text after a context: plans, constrained to their grammar, and free text (thoughts, answers).

The grammar of a plan (`macro/sentence/plan.py`) is a small automaton:

    [bos] <think>        fixed
    chain of thought     any printable text without '<', until the model writes </think>; at the length limit only
                         tokens that continue </think>
    <layout>             fixed
    64 cells             background or a subject that exists
    </layout> [eos]      fixed

`</think>` is ordinary text, which a tokenizer may split anywhere or merge with the letters before it. So the state of
the automaton is the number of *characters* of `</think>` written so far, and a table maps every token to the next
state: another number, 8 (closed), or none (forbidden). Tokens are sampled from

    softmax(logits / temperature) over the fewest tokens that hold `top_p` of the mass     (0 = the likeliest)

Every plan and thought is then prefilled again from its text (`macro/sampling/prefill.py`), so that the image depends on
that text alone, and a plan.json passed back in gives the same image.
Read next: `macro/sampling/pipeline.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from macro.inputs.tokenize_example import PositionState
from macro.models.composer import Cache, Composer, mask_fields
from macro.models.variants import ModelConfig
from macro.sampling.options import PlanSamplingConfig
from macro.sentence.attention_mask import CAUSAL
from macro.sentence.layout import GRID_SIZE
from macro.sentence.plan import END_THINK, THINK, Plan

CLOSED = len(END_THINK)
CELL = -1  # in `tail`: a cell, free to choose
# A chain of thought at its limit closes within this many tokens: one that ends in '<', then one per character.
SLACK = CLOSED
Choose = Callable[[Array, Array, Any], tuple[Array, Any, Array]]


# ---- the grammar of a plan ----


def plan_grammar(tokenizer, vocabulary: int, subjects: int) -> dict[str, np.ndarray]:
    """The grammar's tables for one tokenizer.

    Args:
        tokenizer: see `macro/inputs/tokenizer.py`.
        vocabulary: number of logits; ids unknown to the tokenizer are never written.
        subjects: number of subjects; with 0 the plan has no grid.

    Returns:
        `prefix` int32[p], `tail` int32[q] (CELL where free), `cells` bool[v], `transitions` int8[8, v]: the count
        after each token at each count, -1 if it is forbidden.
    """
    cells = np.zeros(vocabulary, bool)
    cells[[tokenizer.cells[n] for n in range(subjects + 1)]] = True
    layout = [tokenizer.layout_start, *[CELL] * GRID_SIZE**2, tokenizer.layout_end] if subjects else []
    return {
        "prefix": np.array([tokenizer.bos, *tokenizer.encode(THINK)], np.int32),
        "tail": np.array([*layout, tokenizer.eos], np.int32),
        "cells": cells,
        "transitions": _transitions(tokenizer, vocabulary),
    }


def batched_grammar(grammars: Sequence[Mapping[str, np.ndarray]], candidates: int) -> dict[str, np.ndarray]:
    """The tables of several sentences: `cells` and `tail` have one row per candidate.

    `ends` int32[rows] is the length of each row's `tail`.
    """
    longest = max(table["tail"].size for table in grammars)
    tails = [np.pad(table["tail"], (0, longest - table["tail"].size)) for table in grammars]
    ends = [table["tail"].size for table in grammars]
    of_rows = {"cells": [table["cells"] for table in grammars], "tail": tails, "ends": ends}
    whole = {name: grammars[0][name] for name in ("prefix", "transitions")}
    return whole | {name: np.repeat(np.stack(values), candidates, axis=0) for name, values in of_rows.items()}


def _transitions(tokenizer, vocabulary: int) -> Int8[np.ndarray, "8 v"]:
    table = np.full((CLOSED, vocabulary), -1, np.int8)
    marks = {tokenizer.bos, tokenizer.eos, tokenizer.image_start, tokenizer.image_end}
    marks |= {tokenizer.layout_start, tokenizer.layout_end, *tokenizer.cells}
    for token in range(min(vocabulary, tokenizer.vocab_size)):
        piece = "" if token in marks else tokenizer.decode([token])
        if piece and piece.replace("\n", "").isprintable():
            table[:, token] = [_advance(piece, count) for count in range(CLOSED)]
    return table


def _advance(piece: str, count: int) -> int:
    """The count of characters of `</think>` after `piece`, or -1 if it is forbidden here."""
    for letter in piece:
        if count == CLOSED:
            return -1
        if letter == END_THINK[count]:
            count += 1
        elif count:  # a '<' that does not continue to </think>
            return -1
    return count


class PlanDecoder:
    """Generates plans with a model; caches the tables of its tokenizer."""

    def __init__(self, config: ModelConfig, tokenizer):
        self.config, self.tokenizer = config, tokenizer
        self._grammars: dict[int, dict] = {}

    def grammar(self, subjects: int) -> dict:
        """The grammar of a plan with this many subjects (`plan_grammar`)."""
        if subjects not in self._grammars:
            self._grammars[subjects] = plan_grammar(self.tokenizer, self.config.llm.vocab, subjects)
        return self._grammars[subjects]

    def write(
        self,
        params: Mapping,
        cache: Cache,
        starts: Sequence[PositionState],
        subjects: Sequence[int],
        keys: Array,
        options: PlanSamplingConfig,
    ) -> list[list[Plan]]:
        """Generates the plans of each sentence's candidates.

        Args:
            params: of the composer.
            cache: the full context of each sentence, [layers, s, p, kv, hd]; it is not copied for candidates.
            starts: where the plan of each sentence starts.
            subjects: number of subjects in each sentence.
            keys: [s x candidates] random keys, grouped by sentence; a candidate depends on its own key only.
        """
        candidates = len(keys) // len(starts)
        grammar = batched_grammar([self.grammar(count) for count in subjects], candidates)
        ids, lengths = write_plans(params, cache, starts, grammar, keys, config=self.config, options=options)
        rows = zip(np.asarray(ids).tolist(), np.asarray(lengths).tolist(), strict=True)
        plans = [Plan.from_tokens(row[:length], self.tokenizer) for row, length in rows]
        return [plans[n : n + candidates] for n in range(0, len(plans), candidates)]


def write_plans(
    params: Mapping,
    cache: Cache,
    starts: Sequence[PositionState],
    grammar: Mapping,
    keys: Array,
    *,
    config: ModelConfig,
    options: PlanSamplingConfig,
) -> tuple[Int[Array, "n m"], Int[Array, "n"]]:
    """Tokens of one plan per key, from bos to eos, padded, and their number; see `PlanDecoder.write`."""
    values = dataclasses.asdict(options)
    limit = values.pop("max_cot_tokens")  # sets the buffer's size; the other values may change without recompiling
    start = jax.tree.map(lambda *each: np.repeat(each, len(keys) // len(starts))[:, None], *starts)
    return _write_plans(params, cache, start, grammar, keys, values, config=config, limit=limit)


@partial(jax.jit, static_argnames=("config", "limit"))
def _write_plans(params, cache, start, grammar, keys, options, *, config, limit):
    size = grammar["prefix"].size + limit + SLACK + grammar["tail"].shape[1]

    def step(logits, position, state):
        token, count, reached = _next_token(logits, position, state, grammar, keys, options, limit)
        return token, {"count": count, "tail": reached}, reached == grammar["ends"]

    zeros = jnp.zeros(keys.shape[0], jnp.int32)
    state = {
        "count": zeros,  # characters of </think> written so far
        "tail": zeros - 1,  # tokens of the tail written so far, -1 in the chain of thought
    }
    first = zeros + grammar["prefix"][0]
    return decode(params, cache, start, first, step, state, config=config, size=size)


def _next_token(logits, position, state, grammar, keys, options, limit):
    """Each candidate's next token, and its counts in `</think>` and in the tail after it."""
    prefix, count, tail = grammar["prefix"], state["count"], state["tail"]
    in_cot = tail < 0
    transitions = grammar["transitions"][jnp.minimum(count, CLOSED - 1)]
    full = position - prefix.size >= limit
    allowed = (transitions >= 0) & (~full | (transitions > count[:, None]))
    forced = jnp.take_along_axis(grammar["tail"], jnp.clip(tail, 0, grammar["ends"] - 1)[:, None], axis=1)[:, 0]
    token = jax.vmap(pick_token)(
        jax.vmap(jax.random.fold_in, (0, None))(keys, position),
        jnp.where(jnp.where(in_cot[:, None], allowed, grammar["cells"]), logits, -jnp.inf),
        jnp.where(in_cot, options["cot_temperature"], options["layout_temperature"]),
        jnp.where(in_cot, options["cot_top_p"], options["layout_top_p"]),
    )
    token = jnp.where(in_cot | (forced == CELL), token, forced)
    given = position < prefix.size
    token = jnp.where(given, prefix[jnp.minimum(position, prefix.size - 1)], token)
    reached = jnp.take_along_axis(transitions, token[:, None], axis=1)[:, 0].astype(jnp.int32)
    count = jnp.where(in_cot & ~given, reached, count)
    after = jnp.where(in_cot, jnp.where(count == CLOSED, 0, -1), tail + 1)
    return token, count, jnp.where(given, -1, after)


# ---- free text ----


def generate(
    params: Mapping,
    cache: Cache,
    starts: Sequence[PositionState],
    tokenizer,
    keys: Array,
    *,
    config: ModelConfig,
    temperature: float,
    max_tokens: int,
) -> list[list[int]]:
    """Generates free text after each context, until eos or `max_tokens` (including bos).

    Args:
        params, cache, starts, keys: as in `PlanDecoder.write`.
        temperature: 0 is greedy.

    Returns:
        Ids without bos and eos, one list per key.
    """
    start = jax.tree.map(lambda *each: np.repeat(each, len(keys) // len(starts))[:, None], *starts)
    marks = jnp.int32(tokenizer.bos), jnp.int32(tokenizer.eos)
    given = params, cache, start, *marks, keys, jnp.float32(temperature)
    ids, lengths = map(np.asarray, _generate(*given, config=config, size=max_tokens))
    rows = [row[1:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    return [row[:-1] if row and row[-1] == tokenizer.eos else row for row in rows]


@partial(jax.jit, static_argnames=("config", "size"))
def _generate(params, cache, start, bos, eos, keys, temperature, *, config, size):
    def choose(logits, position, state):
        drawn = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
        token = jax.vmap(pick_token, (0, 0, None, None))(drawn, logits, temperature, jnp.float32(jnp.inf))
        return token, state, token == eos

    first = jnp.broadcast_to(bos, keys.shape[:1])
    return decode(params, cache, start, first, choose, None, config=config, size=size)


# ---- the loop ----


def decode(
    params: Mapping,
    cache: Cache,
    start: PositionState,
    first: Int[Array, "n"],
    choose: Choose,
    state: Any,
    *,
    config: ModelConfig,
    size: int,
) -> tuple[Int[Array, "n m"], Int[Array, "n"]]:
    """Decodes n continuations of contexts as one batch.

    Args:
        params: of the composer.
        cache: the contexts, [layers, rows, p, kv, hd]; n / rows consecutive continuations share one.
        start: where the continuations start, integers or `[n, 1]` each; a continuation is one causal span.
        first: the first token of each row.
        choose: (logits [n, v], position of the token to choose, state) -> (token [n], state, whether it ends the
            row [n]). Decoding runs until every row has ended; tokens after a row's end are ignored.
        state: initial state of `choose`.
        size: m, the most tokens of a row.

    Returns:
        (ids, number of tokens in each row).
    """
    n, m = first.shape[0], size
    layers, _, _, *head = cache["k"].shape
    k, v = (jnp.zeros((layers, n, m, *head), cache[name].dtype) for name in ("k", "v"))
    own = text_meta(start, jnp.broadcast_to(jnp.arange(m), (n, m)))
    model = Composer(config)

    def step(carry):
        written = carry["written"]
        # Everything not written yet is padding, including the token of this step.
        meta = mask_fields(own) | {"segment_ids": jnp.where(jnp.arange(m) < written, own["segment_ids"], -1)}
        mine = {"k": carry["k"], "v": carry["v"], "meta": meta}
        text = {name: jax.lax.dynamic_slice_in_dim(values, written, 1, 1) for name, values in own.items()}
        text["ids"] = jax.lax.dynamic_slice_in_dim(carry["ids"], written, 1, 1)
        hidden, new, _ = model.apply({"params": params}, {"text": text}, None, (cache, mine), method=Composer.prefill)
        logits = model.apply({"params": params}, hidden[:, 0], method=Composer.logits)
        token, state, ends = choose(logits, written + 1, carry["state"])
        done = carry["done"]
        return {
            "written": written + 1,
            "ids": jax.lax.dynamic_update_slice_in_dim(carry["ids"], token[:, None], written + 1, 1),
            "k": jax.lax.dynamic_update_slice_in_dim(carry["k"], new["k"], written, 2),
            "v": jax.lax.dynamic_update_slice_in_dim(carry["v"], new["v"], written, 2),
            "state": state,
            "done": done | ends,
            "length": jnp.where(done, carry["length"], written + 2),
        }

    carry = {
        "written": jnp.int32(0),  # number of tokens whose keys and values are in the buffer
        "ids": jnp.broadcast_to(first[:, None], (n, m)),
        "k": k,
        "v": v,
        "state": state,
        "done": jnp.zeros(n, bool),
        "length": jnp.ones(n, jnp.int32),
    }

    def goes_on(carry):
        return jnp.any(~carry["done"]) & (carry["written"] + 1 < m)

    carry = jax.lax.while_loop(goes_on, step, carry)
    return carry["ids"], carry["length"]


def text_meta(start: PositionState, offset: Int[Array, "n m"]) -> dict:
    """Metadata of the text tokens at `start` + offset, all of one span."""
    zeros = jnp.zeros_like(offset)
    return {
        "segment_ids": zeros,
        "token_index": start.token_index + offset,
        "block_id": start.block_id + zeros,
        "mask_mode": zeros + CAUSAL,
        "position_ids": start.position_id + offset,
    }


def pick_token(key: Array, logits: Float[Array, "v"], temperature: Array, top_p: Array) -> Int[Array, ""]:
    """One token: the likeliest at temperature 0, else sampled from the nucleus. Logits of -inf are never chosen."""
    scaled = logits / jnp.maximum(temperature, 1e-6)
    falling = -jnp.sort(-scaled)
    before = jnp.cumsum(jax.nn.softmax(falling)) - jax.nn.softmax(falling)
    # A token is in the nucleus while less than `top_p` comes before it; so the likeliest always is.
    least = jnp.min(jnp.where(before < jnp.maximum(top_p, 1e-6), falling, jnp.inf))
    drawn = jax.random.categorical(key, jnp.where(scaled >= least, scaled, -jnp.inf))
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits)).astype(jnp.int32)
