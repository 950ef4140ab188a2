import numpy as np
import pytest
from sampling.toy import PACKING, TOKENIZER, picture, sentence

from macro.diffusion.guidance import bagel, inset
from macro.inputs.conditioning import CONTEXTS
from macro.sampling.contexts import capacity, continue_prompt, read_prompt
from macro.sentence.layout import layout_to_token_weights
from macro.sentence.plan import Plan
from macro.sentence.sight import NOISE
from macro.sentence.spans import Image, Sentence, Target, Text

PLAN = Plan("x", np.arange(64, dtype=np.int8).reshape(8, 8) % 3)
WORDS = 2 * 2 + len("A ") + len("by ")  # with bos and eos each
PLAN_TOKENS = 2 + len(PLAN.tokens(TOKENIZER))


@pytest.fixture(scope="module")
def prompt():
    return read_prompt([sentence()], CONTEXTS, TOKENIZER, PACKING)


@pytest.fixture(scope="module")
def after(prompt):
    return continue_prompt([sentence()], [[PLAN, Plan("longer words", PLAN.grid)]], prompt, TOKENIZER, PACKING)


def _tokens(prompt, stream: str) -> dict[str, int]:
    return dict(zip(prompt.contexts, (prompt.streams[stream]["sample"] >= 0).sum(1).tolist(), strict=True))


def test_guidance_asks_for_contexts_that_exist():
    assert set(inset().contexts + bagel().contexts) == set(CONTEXTS)


def test_what_each_context_holds(prompt):
    assert _tokens(prompt, "vision") == {"full": 6, "no_text": 6, "no_image": 0, "null": 0}
    assert _tokens(prompt, "text") == {"full": WORDS + 4, "no_text": 4, "no_image": WORDS, "null": 0}
    assert "latent" not in prompt.streams


def test_dropped_pictures_move_rope_and_dropped_words_do_not(prompt):
    ends = dict(zip(prompt.contexts, prompt.ends, strict=True))
    assert {name: end.rope for name, end in ends.items()} == {
        "full": WORDS + 2,
        "no_text": 2,
        "no_image": WORDS + 2,
        "null": 2,
    }
    assert {name: end.order for name, end in ends.items()} == {
        "full": WORDS + 4 + 6,
        "no_text": 4 + 6,
        "no_image": WORDS,
        "null": 0,
    }


def test_pictures_are_bound_only_where_words_are(prompt):
    bound = prompt.streams["vision"]["subject"]
    assert bound[0, :6].tolist() == [1] * 4 + [2] * 2
    assert not bound[1:].any()


def test_plan_stands_in_the_contexts_with_words(prompt, after):
    assert after.kept == (0, 2)
    assert (after.plan["sample"] >= 0).sum(1).tolist() == [PLAN_TOKENS, PLAN_TOKENS + 11] * 2
    full = {name: values[0, :PLAN_TOKENS] for name, values in after.plan.items()}
    assert full["ids"].tolist() == [TOKENIZER.bos, *PLAN.tokens(TOKENIZER), TOKENIZER.eos]
    assert full["labels"].tolist() == [*full["ids"][1:], -1]
    start = prompt.ends[0]
    np.testing.assert_array_equal(full["order"], start.order + np.arange(PLAN_TOKENS))
    np.testing.assert_array_equal(full["rope"], start.rope + np.arange(PLAN_TOKENS))


def test_target_follows_the_plan_or_the_prompt(prompt, after):
    n = after.latent["order"].shape[1]
    assert n == 16
    for row in range(8):
        context, candidate = divmod(row, 2)
        more = [PLAN_TOKENS, PLAN_TOKENS + 11][candidate] if context in after.kept else 0
        end = prompt.ends[context]
        assert after.frame["order"][row].tolist() == [end.order + more, end.order + more + n + 1]
        np.testing.assert_array_equal(after.latent["order"][row], end.order + more + 1 + np.arange(n))
        assert set(after.latent["rope"][row]) == set(after.frame["rope"][row]) == {end.rope + more}
        assert set(after.latent["mode"][row]) == set(after.frame["mode"][row]) == {NOISE}


def test_latents_are_bound_only_where_the_plan_is(after):
    shares = layout_to_token_weights(PLAN.grid, 4, 4)
    for row in range(8):
        expected = shares if row // 2 in after.kept else 0 * shares
        np.testing.assert_array_equal(after.latent["subjects"][row], expected)


def test_clean_copies_of_sources_ride_along():
    edit = Sentence(
        (Image(picture(3, 64, 64), role="source"), Text("Dim it."), Target(size=(64, 64))), "edit"
    )
    prompt = read_prompt([edit], ("full", "no_image"), TOKENIZER, PACKING)
    assert _tokens(prompt, "latent") == {"full": 16, "no_image": 0}
    np.testing.assert_array_equal(prompt.pixels["64x64"][0, 0], picture(3, 64, 64))


def test_capacities_grow_in_few_steps():
    assert [capacity(n) for n in (0, 1, 64, 65, 96, 97, 128, 129, 300)] == [64] * 3 + [96] * 2 + [128] * 2 + [
        192,
        384,
    ]
