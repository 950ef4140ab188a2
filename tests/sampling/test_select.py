import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.toy import CONFIG, PACKING, TOKENIZER, picture, pipeline, random_params, sentence

from macro.kernels.attention.reference import sight_mask
from macro.models.composer import image_ids
from macro.models.selection import METHODS, Selection
from macro.sampling.contexts import continue_prompt, read_prompt
from macro.sampling.plan import prefill, read
from macro.sampling.select import choice_of, selected
from macro.sampling.strengths import by_span
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError

PARAMS = random_params()
CONTEXTS = ("full", "no_text", "null")
GRID = np.arange(64, dtype=np.int8).reshape(8, 8) % 3
PLANS = [Plan("a by", GRID), Plan("longer words", GRID.T.copy())]
HALF = Selection(keep=0.5, layers=(0, 1))


def edit() -> Sentence:
    """An editing source with both copies, then a reference, then a reference of another size."""
    shown = (Image(picture(3, 64, 64), role="source", number=1), Image(picture(1), subject=1, number=2))
    return Sentence((*shown, Text("so "), Image(picture(2, 16, 32), subject=2, number=3), Target(size=(64, 64))))


def read_all(sentences, selection, plans=PLANS):
    """(prompt, choice, prompts' cache, plans' cache, what was asked, plans as text)."""
    prompt = read_prompt(sentences, CONTEXTS, TOKENIZER, PACKING)
    choice = choice_of(selection, prompt, CONFIG)
    given = PARAMS["composer"], PARAMS["vae"], prompt.streams, prompt.pixels, choice.of_prompt()
    cache, asked = prefill(*given, config=CONFIG)
    after = continue_prompt(sentences, [plans] * len(sentences), prompt, TOKENIZER, PACKING)
    asking = choice.of_plan(after, len(plans))
    counts = {"contexts": len(CONTEXTS), "kept": after.kept, "candidates": len(plans)}
    made, _, again = read(PARAMS["composer"], cache, after.plan, asking, config=CONFIG, **counts)
    return prompt, choice, cache, made, [asked, again], after


def kept_orders(cache, row):
    sample = np.asarray(cache["meta"]["sample"][row])
    return sorted(np.asarray(cache["meta"]["order"][row])[sample >= 0].tolist())


@pytest.fixture(scope="module")
def half():
    return read_all([edit()], HALF)


@pytest.mark.slow
def test_what_layers_answer_is_what_attention_gives_the_pictures(half):
    """Against the model's own attention weights, caught where they are computed densely."""
    from macro.kernels.attention import api
    from macro.kernels.attention.reference import attention_reference

    prompt, choice, cache, _, asked, after = half
    caught = []

    def spy(q, k, v, q_meta, k_meta, k_bias=None):
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)) / q.shape[-1] ** 0.5
        caught.append((scores, sight_mask(q_meta, k_meta)))
        return attention_reference(q, k, v, q_meta, k_meta, k_bias)

    original, api._on_one_device = api._on_one_device, spy
    try:
        with jax.disable_jit():
            streams, pixels = jax.tree.map(jnp.asarray, (prompt.streams, prompt.pixels))
            given = PARAMS["composer"], PARAMS["vae"], streams, pixels
            prefill.__wrapped__(*given, config=CONFIG)
    finally:
        api._on_one_device = original
    # Besides, there are the vision encoder's, of fewer tokens, and what `nn.scan` traces to learn shapes.
    size = cache["k"].shape[2]
    own = [each for each in caught if each[0].shape[-1] == size and not isinstance(each[0], jax.core.Tracer)]
    assert len(own) == CONFIG.llm.layers
    picture = np.asarray(choice.picture[0])
    for layer, (scores, mask) in enumerate(own):
        weights = np.asarray(jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1))[0].mean(axis=0)
        weights = np.where(np.asarray(mask[0]), weights, 0)
        text = weights[picture < 0].sum(axis=0) * (picture >= 0)
        others = (weights * ((picture[:, None] >= 0) & (picture[:, None] != picture))).sum(axis=0) * (picture >= 0)
        np.testing.assert_allclose(asked[0][0][layer, 0], [text, others], atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_quotas_hold_in_every_method_and_context(method):
    selection = dataclasses.replace(HALF, method=method)
    prompt, choice, cache, made, asked, _ = read_all([edit()], selection)
    small = selected(choice, cache, made, asked, [7])
    counts = np.bincount(np.asarray(choice.picture[0])[np.asarray(choice.picture[0]) >= 0])
    assert counts.tolist() == [20, 4, 2]  # 16 latents and 4 patches of the source
    found = {}
    for row, context in enumerate(CONTEXTS):
        sample = np.asarray(cache["meta"]["sample"][row])
        orders = dict(zip(np.asarray(cache["meta"]["order"][row])[sample >= 0].tolist(),
                          np.asarray(image_ids(prompt.streams))[row][sample >= 0].tolist(), strict=True))  # fmt: skip
        kept = [orders[order] for order in kept_orders(small, row)]
        found[context] = np.bincount([p for p in kept if p >= 0], minlength=3).tolist()
        assert sum(p < 0 for p in kept) == sum(p < 0 for p in orders.values())  # all text stays
    assert found["null"] == [0, 0, 0] and found["no_text"] == found["full"]
    if method == "images":
        assert sum(found["full"]) == 13 and min(found["full"]) >= 1
    else:
        assert found["full"] == [10, 2, 1]


def test_what_is_kept_is_moved_bit_by_bit(half):
    _, choice, cache, made, asked, _ = half
    small = selected(choice, cache, made, asked, [0])
    for row in range(2):
        sample = np.asarray(cache["meta"]["sample"][row])
        places = {int(order): n for n, order in enumerate(cache["meta"]["order"][row]) if sample[n] >= 0}
        for n, order in enumerate(np.asarray(small["meta"]["order"][row])):
            if small["meta"]["sample"][row, n] >= 0:
                for name in ("k", "v"):
                    np.testing.assert_array_equal(small[name][:, row, n], cache[name][:, row, places[int(order)]])


def test_the_tokens_with_the_highest_scores_are_kept(half):
    _, choice, cache, made, asked, _ = half
    picture, sample = np.asarray(choice.picture[0]), np.asarray(cache["meta"]["sample"][0])
    total = np.asarray(sum(each for (each,) in asked)).sum(axis=0)[0] / 2
    meta, plan = ({name: values[:1] for name, values in each["meta"].items()} for each in (cache, made))
    seen = np.asarray(sight_mask(meta, meta))[0]
    other = (picture[:, None] >= 0) & (picture[:, None] != picture)
    counts = np.stack([seen[picture < 0].sum(axis=0), (seen & other).sum(axis=0)])
    counts[0] += np.asarray(sight_mask(plan, meta))[0].sum(axis=0)
    # The last picture is seen by text alone: its own end token, the thought and the layout.
    assert (counts[0][picture == 2] > 60).all() and not counts[1][picture == 2].any()
    score = (total / np.maximum(counts, 1)).sum(axis=0)
    small = selected(choice, cache, made, asked, [0])
    kept = set(kept_orders(small, 0))
    order = np.asarray(meta["order"][0])
    for number, quota in enumerate(choice.quotas[0]):
        mine = np.flatnonzero((picture == number) & (sample >= 0))
        best = sorted(mine, key=lambda n: -score[n])[:quota]
        assert kept & set(order[mine].tolist()) == set(order[best].tolist())


def test_budgets_are_dealt_and_checked():
    prompt = read_prompt([edit()], CONTEXTS, TOKENIZER, PACKING)
    assert choice_of(Selection(budget=19), prompt, CONFIG).quotas.sum() == 19
    assert choice_of(None, prompt, CONFIG) is None
    with pytest.raises(UserError, match=r"select.budget=2: 3 pictures .* need 3"):
        choice_of(Selection(budget=2), prompt, CONFIG)
    with pytest.raises(UserError, match=r"select.layers=\(5,\): the model's layers are 0 to 1"):
        choice_of(Selection(keep=0.5, layers=(5,)), prompt, CONFIG)


def test_a_plan_decides_too_and_is_the_first_candidates(half):
    """Scores come from prompt and plan; other candidates' plans change nothing, so a picture follows from its key."""
    _, choice, cache, made, asked, _ = half
    one = read_all([edit()], HALF, PLANS[:1])
    np.testing.assert_allclose(asked[1][0], one[4][1][0], atol=1e-6)
    first = selected(choice, cache, made, asked, [0])
    alone = selected(*one[1:5], [0])
    assert kept_orders(first, 0) == kept_orders(alone, 0)


def test_keeping_everything_by_budget_draws_the_same_picture():
    whole, chosen = pipeline(), pipeline(select=Selection(budget=1000))
    call = {"instruction": "A <image 1> by <image 2>.", "images": [picture(1), picture(2)], "plan": PLANS[0]}
    a, b = whole.compose(**call), chosen.compose(**call)
    assert "select" in b.seconds and "select" not in a.seconds
    assert np.abs(a.pixels.astype(int) - b.pixels).max() <= 1
    fewer = whole.compose(**call, select=Selection(keep=0.25))
    assert (fewer.pixels != a.pixels).any()


@pytest.mark.slow
def test_sentences_in_one_batch_are_what_they_are_alone():
    """Another number and other sizes of pictures beside it, subjects or none: each result is its own."""
    three = Sentence((*sentence().spans[:-1], Text("and "), Image(picture(4, 32, 16), subject=3, number=3),
                      Target(size=(64, 64))))  # fmt: skip
    none = Sentence((Text("An owl."), Target(size=(64, 64))))
    sentences, drawing = [sentence(), three, none], pipeline(select=Selection(keep=0.5))
    together = drawing.compose_batch(sentences, candidates=2, seeds=[3, 4, 5])
    for number, result in enumerate(together):
        alone = drawing.compose_sentence(sentences[number], candidates=2, seed=3 + number)
        assert [c.plan for c in result.candidates] == [c.plan for c in alone.candidates]
        for a, b in zip(result.candidates, alone.candidates, strict=True):
            assert a.score == pytest.approx(b.score, rel=1e-4)
            assert np.abs(a.pixels.astype(int) - b.pixels).max() <= 1


def test_lots_and_seeds():
    """A token's lot follows from its picture and place, wherever it lies; seeds may have 64 bits."""
    from macro.models.selection import scores

    lot = Selection(keep=0.5, method="random")
    own = jnp.asarray([[-1] * 3 + [0] * 4 + [1] * 2, [-1] * 5 + [0] * 4], jnp.int32)
    keys = jnp.stack([jax.random.key(3_000_000_000)] * 2)
    nothing = jnp.zeros((2, 2, 9)), jnp.zeros((1, 2, 9, 1, 1))
    drawn, _ = scores(lot, None, *nothing, own, jnp.ones((2, 2), jnp.int32), keys)
    np.testing.assert_array_equal(drawn[0, 3:7], drawn[1, 5:])
    assert len(set(np.asarray(drawn[0, 3:]).tolist())) == 6


def test_strengths_of_pictures_after_a_target():
    a, b, c = (Image(picture(n)) for n in (1, 2, 3))
    spans = Text("x"), a, Target(picture(4, 64, 64)), Text("y"), b, a, c, Target(size=(64, 64))
    assert by_span(Sentence(spans), [1.0, 2.0, 3.0, 4.0]) == [1.0, 1.0, 2.0, 3.0, 4.0, 1.0]


def test_strengths():
    drawing = pipeline()
    call = {"instruction": "A <image 1> by <image 2>.", "images": [picture(1), picture(2)], "plan": PLANS[0]}
    plain = drawing.compose(**call)
    np.testing.assert_array_equal(drawing.compose(**call, strengths=[1.0, 1.0]).pixels, plain.pixels)
    stronger = drawing.compose(**call, strengths=[1.0, 3.0])
    assert (stronger.pixels != plain.pixels).any()
    for bad, said in (([1.0], "1 for 2 pictures"), ([1.0, -1.0], "at least 0"), ([1.0, float("nan")], "at least 0")):
        with pytest.raises(UserError, match=f"strengths: .*{said}"):
            drawing.compose(**call, strengths=bad)


def test_bad_batches():
    drawing = pipeline()
    other = sentence().replace(spans=(*sentence().spans[:-1], Target(size=(32, 64))))
    with pytest.raises(UserError, match="size: targets of 2 sizes"):
        drawing.compose_batch([sentence(), other])
    with pytest.raises(UserError, match="plan: given for some"):
        drawing.compose_batch([sentence(), sentence()], [PLANS[0], None])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (dict(), "give keep or budget"), (dict(keep=0.5, budget=9), "give keep or budget"),
        (dict(keep=0.0), "select.keep"), (dict(keep=1.2), "select.keep"), (dict(keep=0.5, floor=0), "select.floor"),
        (dict(keep=0.5, method="best"), "select.method='best'"),
    ],
)  # fmt: skip
def test_bad_selections(fields, said):
    with pytest.raises(UserError, match=said):
        Selection(**fields)
