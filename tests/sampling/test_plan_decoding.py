import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.toy import CONFIG, TOKENIZER, continuation_of, prompt_of, random_params, sentence, training_row

from macro.models.composer import Composer
from macro.objectives.text import text_losses
from macro.sampling.contexts import text_tokens
from macro.sampling.options import PlanSamplingConfig
from macro.sampling.plan_decoding import batched_grammar, generate, plan_grammar, write_plans
from macro.sampling.prefill import gathered, read_plans, read_prompt
from macro.sentence.layout import validate_grid
from macro.sentence.plan import Plan

PARAMS = random_params()
FREE = PlanSamplingConfig(1.0, 1.0, 1.0, 1.0, max_cot_tokens=10)
CONTEXTS = ("full", "no_image", "null")


@pytest.fixture(scope="module")
def prompt():
    return prompt_of([sentence()], CONTEXTS)


@pytest.fixture(scope="module")
def caches(prompt):
    return read_prompt(PARAMS, prompt, CONFIG)[0]


@pytest.fixture(scope="module")
def cache(prompt, caches):
    """All contexts side by side."""
    return gathered([None if n is None else caches[n] for n in prompt.contexts.values()], 1, CONFIG)


def _write(prompt, caches, keys, subjects=2, options=FREE):
    grammar = batched_grammar([plan_grammar(TOKENIZER, CONFIG.llm.vocab, subjects)], len(keys))
    given = PARAMS["composer"], caches[prompt.contexts["full"]], prompt.ends["full"]
    ids, lengths = write_plans(*given, grammar, keys, config=CONFIG, options=options)
    rows = zip(np.asarray(ids).tolist(), np.asarray(lengths).tolist(), strict=True)
    return [row[:length] for row, length in rows]


def _keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@pytest.fixture(scope="module")
def written(prompt, caches):
    return _write(prompt, caches, _keys(24))


def test_any_weights_write_valid_plans(written):
    for ids in written:
        assert ids[0] == TOKENIZER.bos and ids[-1] == TOKENIZER.eos
        text = TOKENIZER.decode(ids)
        assert text.startswith("<think>") and text.endswith("</think>") and text.count("<") == 2
        plan = Plan.from_tokens(ids, TOKENIZER)
        validate_grid(plan.grid, subjects=2)
        thought = len(ids) - 1 - len(TOKENIZER.encode("<think>")) - 67
        assert thought <= FREE.max_cot_tokens + len("</think>")
    assert len({tuple(ids) for ids in written}) == 24


def test_all_subjects_that_exist_can_be_named_and_no_others(prompt, caches):
    for subjects in (1, 5):
        ids = _write(prompt, caches, _keys(24), subjects=subjects)
        named = {n for row in ids for n in Plan.from_tokens(row, TOKENIZER).named}
        assert named == set(range(1, subjects + 1))


def test_without_subjects_a_plan_is_words_only(prompt, caches):
    ids = _write(prompt, caches, _keys(1), subjects=0)
    assert all(Plan.from_tokens(row, TOKENIZER).grid is None for row in ids)
    assert all(row[-1] == TOKENIZER.eos for row in ids)


def test_a_candidate_depends_on_its_own_key_only(prompt, caches, written):
    alone = [_write(prompt, caches, _keys(24)[n : n + 1])[0] for n in (0, 5)]
    assert alone == [written[0], written[5]]


def test_greedy_takes_the_likeliest_allowed_token_whatever_the_key(prompt, caches):
    greedy = dataclasses.replace(FREE, cot_temperature=0.0, layout_temperature=0.0)
    tiny = dataclasses.replace(FREE, cot_top_p=0.0, layout_top_p=0.0)
    (first,), (second,) = (_write(prompt, caches, _keys(1, s), options=greedy) for s in (0, 1))
    (third,) = _write(prompt, caches, _keys(1, seed=2), options=tiny)
    assert first == second == third


@jax.jit
def _training_score(row, x):
    apply = Composer(CONFIG).apply
    out = apply({"params": PARAMS["composer"]}, row, x, jnp.full(x.shape[:2], 0.3))
    logits = apply({"params": PARAMS["composer"]}, out["text"], method=Composer.logits)
    nats, weight = text_losses(lambda x: x, logits, row["text"], logits.shape[-1])
    return -jnp.sum(nats * weight) / jnp.sum(weight)


def test_the_score_of_a_plan_is_that_of_training(prompt, cache, written):
    """Read all at once through the cache, and packed as in training."""
    plans = [Plan.from_tokens(ids, TOKENIZER) for ids in written[:3]]
    after = continuation_of([sentence()], [plans], prompt)
    counts = {"contexts": 3, "kept": after.kept, "candidates": len(plans)}
    _, scored, _ = read_plans(PARAMS["composer"], cache, after.plan, config=CONFIG, **counts)
    assert (np.asarray(scored) < 0).all()
    for plan, score in zip(plans, np.asarray(scored), strict=True):
        row, x = training_row(plan, "full")
        assert float(_training_score(row, x)) == pytest.approx(score, rel=1e-4)


def test_greedy_tokens_are_those_of_reading(prompt, caches):
    """Token by token through the cache, and all at once: each is the likeliest after those before it."""
    full = caches[prompt.contexts["full"]]
    given = PARAMS["composer"], full, prompt.ends["full"], TOKENIZER, _keys(1)
    (ids,) = generate(*given, config=CONFIG, temperature=0.0, max_tokens=8)
    text = text_tokens([TOKENIZER.bos, *ids], prompt.ends["full"][0])
    streams = {"text": jax.tree.map(lambda x: jnp.asarray(x)[None], text)}
    params = {"params": PARAMS["composer"]}
    hidden, *_ = Composer(CONFIG).apply(params, streams, None, (full,), method=Composer.prefill)
    likeliest = jnp.argmax(Composer(CONFIG).apply(params, hidden, method=Composer.logits), axis=-1)[0]
    assert likeliest[: len(ids)].tolist() == ids and len(ids) > 0


def test_reading_adds_plans_to_the_contexts_that_keep_them(prompt, cache):
    plans = [Plan("ab", np.zeros((8, 8), np.int8)), Plan("c", np.ones((8, 8), np.int8))]
    after = continuation_of([sentence()], [plans], prompt)
    counts = {"contexts": 3, "kept": after.kept, "candidates": 2}
    added, *_ = read_plans(PARAMS["composer"], cache, after.plan, config=CONFIG, **counts)
    assert added["k"].shape[1] == 6
    for row in range(6):
        new = added["meta"]["segment_ids"][row] >= 0
        assert int(new.sum()) == (len(plans[row % 2].tokens(TOKENIZER)) + 2 if row < 4 else 0)
