import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.toy import CONFIG, PACKING, TOKENIZER, random_params, sentence, training_row

from macro.models.composer import Composer
from macro.objectives.plan import plan_losses
from macro.sampling.contexts import continue_prompt, read_prompt
from macro.sampling.plan import Writing, prefill, read, write
from macro.sampling.rules import plan_rules, rules_of_rows
from macro.sentence.layout import validate_grid
from macro.sentence.plan import Plan

PARAMS = random_params()
FREE = Writing(words=1.0, words_top_p=1.0, cells=1.0, cells_top_p=1.0, limit=10)
CONTEXTS = ("full", "no_image", "null")


@pytest.fixture(scope="module")
def prompt():
    return read_prompt([sentence()], CONTEXTS, TOKENIZER, PACKING)


@pytest.fixture(scope="module")
def cache(prompt):
    return prefill(PARAMS["composer"], PARAMS["vae"], prompt.streams, prompt.pixels, config=CONFIG)[0]


def _write(prompt, cache, keys, subjects=2, writing=FREE, params=PARAMS):
    full = {name: cache[name][:, :1] for name in ("k", "v")}
    full["meta"] = {name: values[:1] for name, values in cache["meta"].items()}
    rules = rules_of_rows([plan_rules(TOKENIZER, CONFIG.llm.vocab, subjects)], len(keys))
    ids, lengths, scores = write(
        params["composer"], full, prompt.ends[:1], rules, keys, config=CONFIG, writing=writing
    )
    rows = zip(np.asarray(ids).tolist(), np.asarray(lengths).tolist(), strict=True)
    return [row[:length] for row, length in rows], np.asarray(scores)


def _keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@pytest.fixture(scope="module")
def written(prompt, cache):
    return _write(prompt, cache, _keys(24))


def test_any_weights_write_valid_plans(written):
    for ids in written[0]:
        assert ids[0] == TOKENIZER.bos and ids[-1] == TOKENIZER.eos
        text = TOKENIZER.decode(ids)
        assert text.startswith("<think>") and text.endswith("</think>") and text.count("<") == 2
        plan = Plan.from_tokens(ids, TOKENIZER)
        validate_grid(plan.grid, subjects=2)
        thought = len(ids) - 1 - len(TOKENIZER.encode("<think>")) - 67
        assert thought <= FREE.limit + len("</think>")
    assert len({tuple(ids) for ids in written[0]}) == 24


def test_all_subjects_that_exist_can_be_named_and_no_others(prompt, cache):
    for subjects in (1, 5):
        ids, _ = _write(prompt, cache, _keys(24), subjects=subjects)
        named = {n for row in ids for n in Plan.from_tokens(row, TOKENIZER).named}
        assert named == set(range(1, subjects + 1))


def test_without_subjects_a_plan_is_words_only(prompt, cache):
    ids, _ = _write(prompt, cache, _keys(1), subjects=0)
    assert all(Plan.from_tokens(row, TOKENIZER).grid is None for row in ids)
    assert all(row[-1] == TOKENIZER.eos for row in ids)


def test_a_candidate_depends_on_its_own_key_only(prompt, cache, written):
    alone = [_write(prompt, cache, _keys(24)[n : n + 1])[0][0] for n in (0, 5)]
    assert alone == [written[0][0], written[0][5]]


def test_greedy_takes_the_likeliest_allowed_token_whatever_the_key(prompt, cache):
    greedy = dataclasses.replace(FREE, words=0.0, cells=0.0)
    tiny = dataclasses.replace(FREE, words_top_p=0.0, cells_top_p=0.0)
    ((first,), _), ((second,), _) = (_write(prompt, cache, _keys(1, s), writing=greedy) for s in (0, 1))
    (third,), _ = _write(prompt, cache, _keys(1, seed=2), writing=tiny)
    assert first == second == third


@jax.jit
def _training_score(row, x):
    apply = Composer(CONFIG).apply
    out = apply({"params": PARAMS["composer"]}, row, x, jnp.full(x.shape[:2], 0.3))
    logits = apply({"params": PARAMS["composer"]}, out["text"], method=Composer.logits)
    nats, weight = plan_losses(lambda x: x, logits, row["text"], logits.shape[-1])
    return -jnp.sum(nats * weight) / jnp.sum(weight)


def _canonical(ids: list[int]) -> bool:
    plan = Plan.from_tokens(ids, TOKENIZER)
    return ids == [TOKENIZER.bos, *plan.tokens(TOKENIZER), TOKENIZER.eos]


def test_score_while_writing_is_the_score_when_read_and_in_training(prompt, cache, written):
    """Token by token through the cache, all at once through the cache, and packed as in training."""
    ids, scores = written
    same = [n for n, row in enumerate(ids) if _canonical(row)][:3]
    assert len(same) >= 2
    plans = [Plan.from_tokens(ids[n], TOKENIZER) for n in same]
    after = continue_prompt([sentence()], [plans], prompt, TOKENIZER, PACKING)
    _, scored, _ = read(
        PARAMS["composer"], cache, after.plan, config=CONFIG, contexts=3, kept=after.kept, candidates=len(plans)
    )
    np.testing.assert_allclose(scored, scores[same], rtol=1e-4)
    for n, score in zip(same, np.asarray(scored), strict=True):
        row, x = training_row(Plan.from_tokens(ids[n], TOKENIZER), "full")
        assert float(_training_score(row, x)) == pytest.approx(score, rel=1e-4)


def test_reading_adds_plans_to_the_contexts_that_keep_them(prompt, cache):
    plans = [Plan("ab", np.zeros((8, 8), np.int8)), Plan("c", np.ones((8, 8), np.int8))]
    after = continue_prompt([sentence()], [plans], prompt, TOKENIZER, PACKING)
    added, *_ = read(
        PARAMS["composer"], cache, after.plan, config=CONFIG, contexts=3, kept=after.kept, candidates=2
    )
    assert added["k"].shape[1] == 6
    for row in range(6):
        new = added["meta"]["sample"][row] >= 0
        assert int(new.sum()) == (len(plans[row % 2].tokens(TOKENIZER)) + 2 if row < 4 else 0)
