import numpy as np
import pytest
from sampling.toy import PACKING, TOKENIZER, continuation_of, prompt_of, random_image, sentence

from macro.inputs.conditioning import CONTEXTS
from macro.sampling.contexts import capacity, context_spans, image_of
from macro.sampling.prefill import names_of
from macro.sentence.attention_mask import NOISE
from macro.sentence.layout import layout_to_token_weights
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text

PLAN = Plan("x", np.arange(64, dtype=np.int8).reshape(8, 8) % 3)
WORDS = 2 * 2 + len("A ") + len("by ")  # with bos and eos each
PLAN_TOKENS = 2 + len(PLAN.tokens(TOKENIZER))


@pytest.fixture(scope="module")
def prompt():
    return prompt_of([sentence()], CONTEXTS)


@pytest.fixture(scope="module")
def after(prompt):
    return continuation_of([sentence()], [[PLAN, Plan("longer words", PLAN.grid)]], prompt)


def _tokens(prompt, stream: str) -> dict[str, int]:
    """How many tokens of a stream each context reads."""
    streams = {name: [prompt.chunks[n].streams.get(stream) for n in prompt.path(name)] for name in prompt.contexts}
    return {name: sum(int((s["segment_ids"] >= 0).sum()) for s in read if s) for name, read in streams.items()}


def test_what_each_context_holds(prompt):
    assert _tokens(prompt, "vision") == {"full": 6, "no_text": 6, "no_image": 0, "null": 0}
    assert _tokens(prompt, "text") == {"full": WORDS + 4, "no_text": 4, "no_image": WORDS, "null": 0}
    assert all("latent" not in chunk.streams for chunk in prompt.chunks)
    assert prompt.contexts["null"] is None and len(prompt.chunks) == 3  # one call for each other context


def test_dropped_images_move_position_ids_and_dropped_text_does_not(prompt):
    ends = {name: each[0] for name, each in prompt.ends.items()}
    ropes = {"full": WORDS + 2, "no_text": 2, "no_image": WORDS + 2, "null": 2}
    assert {name: end.position_id for name, end in ends.items()} == ropes
    orders = {"full": WORDS + 4 + 6, "no_text": 4 + 6, "no_image": WORDS, "null": 0}
    assert {name: end.token_index for name, end in ends.items()} == orders


def test_images_are_bound_only_where_text_is(prompt):
    bound = {name: prompt.chunks[prompt.contexts[name]].streams["vision"]["subject"] for name in ("full", "no_text")}
    assert bound["full"][0, :6].tolist() == [1] * 4 + [2] * 2 and not bound["no_text"].any()


def test_plan_stands_in_the_contexts_with_text(prompt, after):
    assert prompt.distinct == CONTEXTS and after.kept == (0, 2)
    assert (after.plan["segment_ids"] >= 0).sum(1).tolist() == [PLAN_TOKENS, PLAN_TOKENS + 11] * 2
    full = {name: values[0, :PLAN_TOKENS] for name, values in after.plan.items()}
    assert full["ids"].tolist() == [TOKENIZER.bos, *PLAN.tokens(TOKENIZER), TOKENIZER.eos]
    assert full["labels"].tolist() == [*full["ids"][1:], -1]
    start = prompt.ends["full"][0]
    np.testing.assert_array_equal(full["token_index"], start.token_index + np.arange(PLAN_TOKENS))
    np.testing.assert_array_equal(full["position_ids"], start.position_id + np.arange(PLAN_TOKENS))


def test_target_follows_the_plan_or_the_prompt(prompt, after):
    n = after.latent["token_index"].shape[1]
    assert n == 16
    for row in range(8):
        context, candidate = divmod(row, 2)
        more = [PLAN_TOKENS, PLAN_TOKENS + 11][candidate] if context in after.kept else 0
        end = prompt.ends[CONTEXTS[context]][0]
        assert after.frame["token_index"][row].tolist() == [end.token_index + more, end.token_index + more + n + 1]
        np.testing.assert_array_equal(after.latent["token_index"][row], end.token_index + more + 1 + np.arange(n))
        rope_ids = set(after.latent["position_ids"][row]), set(after.frame["position_ids"][row])
        assert rope_ids == ({end.position_id + more}, {end.position_id + more})
        assert set(after.latent["mask_mode"][row]) == set(after.frame["mask_mode"][row]) == {NOISE}
        if not candidate:
            assert after.ends[CONTEXTS[context]][0].token_index == end.token_index + more


def test_latents_are_bound_only_where_the_plan_is(after):
    shares = layout_to_token_weights(PLAN.grid, 4, 4)
    for row in range(8):
        expected = shares if row // 2 in after.kept else 0 * shares
        np.testing.assert_array_equal(after.latent["subjects"][row], expected)


EDIT = Sentence((Image(random_image(3, 64, 64), role="source"), Text("Dim it."), Target(size=(64, 64))), "edit")


def test_images_that_stand_before_all_text_are_read_once():
    """And clean VAE copies of sources are encoded once; every token has one name in all contexts."""
    prompt = prompt_of([EDIT], ("full", "no_text", "no_image"))
    assert _tokens(prompt, "latent") == {"full": 16, "no_text": 16, "no_image": 0}
    assert prompt.path("full")[0] == prompt.path("no_text")[0] and len(prompt.path("no_text")) == 1
    assert len(prompt.latents[0]) == 1
    np.testing.assert_array_equal(prompt.latents[0][0], random_image(3, 64, 64))
    full, no_text = (names_of(prompt, prompt.contexts[name])[0] for name in ("full", "no_text"))
    assert sorted(full[full >= 0]) == sorted(no_text[no_text >= 0]) == list(range(16 + 4))
    assert set(image_of(full)) == {-1, 0}


def test_equal_contexts_are_one():
    words = Sentence((Text("An owl."), Target(size=(64, 64))))
    prompt = prompt_of([words], CONTEXTS)
    assert prompt.same == {"full": "full", "no_text": "no_text", "no_image": "full", "null": "no_text"}
    assert len(prompt.chunks) == 1
    # Beside a sentence with images they differ, for all rows of a batch are computed alike.
    assert prompt_of([words, EDIT], CONTEXTS).distinct == CONTEXTS


def test_a_system_prompt_is_read_by_all():
    spans = context_spans(EDIT, CONTEXTS, "joint", TOKENIZER, PACKING, TOKENIZER.encode("think"))
    assert {tuple(pieces[0].ids) for pieces in spans.values()} == {
        (TOKENIZER.bos, *TOKENIZER.encode("think"), TOKENIZER.eos)
    }


def test_snapshots_of_the_released_code():
    """`no_text` is what `full` was before the last text, or after the last image; dropped images leave no gap."""

    def lengths(*spans):
        whole = Sentence((*spans, Target(size=(64, 64))))
        return [len(each) for each in context_spans(whole, CONTEXTS[:3], "bagel", TOKENIZER, PACKING).values()]

    image, text = Image(random_image(1)), Text("x")
    assert lengths(text) == [1, 0, 1]
    assert lengths(image, text) == [2, 1, 1]
    assert lengths(image, text, image, text) == [4, 3, 2]
    assert lengths(text, image) == [2, 2, 1]
    assert lengths(text, text) == [2, 1, 2]


def test_capacities_grow_in_few_steps():
    sizes = [capacity(n) for n in (0, 1, 64, 65, 96, 97, 128, 129, 300)]
    assert sizes == [64] * 3 + [96] * 2 + [128] * 2 + [192, 384]
