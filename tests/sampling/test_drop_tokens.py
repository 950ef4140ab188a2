import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling.toy import CONFIG, continuation_of, pipeline, prompt_of, random_image, random_params, sentence

from macro.kernels.attention.reference import attention_mask
from macro.models.token_selection import METHODS, TokenSelection
from macro.sampling.contexts import TEXT, image_of
from macro.sampling.drop_tokens import choice_of, drop_tokens
from macro.sampling.image_weights import by_span
from macro.sampling.prefill import encode, gathered, names_of, prefill, read_plans, read_prompt
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError

PARAMS = random_params()
CONTEXTS = ("full", "no_text", "null")
GRID = np.arange(64, dtype=np.int8).reshape(8, 8) % 3
PLANS = [Plan("a by", GRID), Plan("longer words", GRID.T.copy())]
HALF = TokenSelection(keep=0.5, layers=(0, 1))


def edit() -> Sentence:
    """An editing source with both copies, then a reference, then a reference of another size."""
    shown = (Image(random_image(3, 64, 64), role="source", number=1), Image(random_image(1), subject=1, number=2))
    return Sentence((*shown, Text("so "), Image(random_image(2, 16, 32), subject=2, number=3), Target(size=(64, 64))))


class Read:
    """What a drawing has read when tokens are chosen."""

    def __init__(self, sentences, selection, plans=PLANS, contexts=CONTEXTS):
        self.prompt = prompt_of(sentences, contexts)
        self.choice = choice_of(selection, self.prompt, CONFIG)
        caches, self.found = read_prompt(PARAMS, self.prompt, CONFIG, probes=self.choice.probes())
        ends = {name: self.prompt.contexts[name] for name in self.prompt.distinct}
        self.caches = {name: None if n is None else caches[n] for name, n in ends.items()}
        self.names = {name: names_of(self.prompt, n) for name, n in ends.items()}
        after = continuation_of(sentences, [plans] * len(sentences), self.prompt)
        cache = gathered(list(self.caches.values()), len(sentences), CONFIG)
        counts = {"contexts": len(ends), "kept": after.kept, "candidates": len(plans)}
        probe = self.choice.plan_probe(after, len(plans))
        self.plans, _, self.plan_found = read_plans(
            PARAMS["composer"], cache, after.plan, probe, config=CONFIG, **counts
        )

    def dropped(self, seed=0):
        """The caches and names that are left."""
        return drop_tokens(self.choice, self.caches, self.plans, self.found, self.plan_found, [seed])

    def total(self):
        """What the probes found in all, for the full context's tokens, summed over layers."""
        found = None
        for number in self.prompt.path("full"):
            new, *old = (np.asarray(each).sum(axis=0)[0] for each in self.found[number])
            found = new if found is None else np.concatenate([found + old[0], new], axis=1)
        return found


@pytest.fixture(scope="module")
def half():
    return Read([edit()], HALF)


@pytest.mark.slow
def test_probes_find_what_attention_gives_the_images(half):
    """Against the model's own attention weights, caught where they are computed densely."""
    from macro.kernels.attention import api
    from macro.kernels.attention.reference import attention_reference

    alone = Read([edit()], HALF, contexts=("full",))
    (chunk,), caught = alone.prompt.chunks, []

    def spy(q, k, v, q_meta, k_meta, k_bias=None):
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)) / q.shape[-1] ** 0.5
        caught.append((scores, attention_mask(q_meta, k_meta)))
        return attention_reference(q, k, v, q_meta, k_meta, k_bias)

    encoded = encode(PARAMS, alone.prompt, None, CONFIG)
    original, api._on_one_device = api._on_one_device, spy
    try:
        with jax.disable_jit():
            streams = jax.tree.map(jnp.asarray, chunk.streams)
            prefill.__wrapped__(PARAMS["composer"], None, streams, *encoded, config=CONFIG)
    finally:
        api._on_one_device = original
    # Besides, there is what `nn.scan` traces to learn shapes.
    size = alone.caches["full"]["k"].shape[2]
    own = [each for each in caught if each[0].shape[-1] == size and not isinstance(each[0], jax.core.Tracer)]
    assert len(own) == CONFIG.llm.layers
    images, (found,) = image_of(alone.names["full"])[0], alone.found[0]
    for layer, (scores, mask) in enumerate(own):
        weights = np.asarray(jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1))[0].mean(axis=0)
        weights = np.where(np.asarray(mask[0]), weights, 0)
        text = weights[images < 0].sum(axis=0) * (images >= 0)
        others = (weights * ((images[:, None] >= 0) & (images[:, None] != images))).sum(axis=0) * (images >= 0)
        np.testing.assert_allclose(found[layer, 0], [text, others], atol=2e-5)


def test_it_does_not_matter_in_how_many_chunks_a_context_is_read(half):
    alone = Read([edit()], HALF, contexts=("full",))
    assert len(alone.prompt.path("full")) < len(half.prompt.path("full"))
    found = [dict(zip(read.names["full"][0], read.total().T, strict=True)) for read in (alone, half)]
    for name in found[0]:
        if name >= 0:
            np.testing.assert_allclose(found[0][name], found[1][name], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_quotas_hold_in_every_method_and_context(method):
    read = Read([edit()], dataclasses.replace(HALF, method=method))
    assert np.bincount(image_of(read.names["full"])[0] + 1)[1:].tolist() == [20, 4, 2]  # 16 latents, 4 patches first
    caches, names = read.dropped(7)
    left = {name: np.bincount(image_of(each[0])[each[0] >= 0], minlength=3).tolist() for name, each in names.items()}
    for name in ("full", "no_text"):
        assert np.sum(names[name] == TEXT) == np.sum(read.names[name] == TEXT)  # all text stays
        assert np.array_equal(np.asarray(caches[name]["meta"]["segment_ids"]) >= 0, names[name] >= TEXT)
        assert set(names["full"][names["full"] >= 0]) == set(names[name][names[name] >= 0])
    assert caches["null"] is None and left["no_text"] == left["full"]
    if method == "images":
        assert sum(left["full"]) == 13 and min(left["full"]) >= 1
    else:
        assert left["full"] == [10, 2, 1]


def test_what_is_kept_is_moved_bit_by_bit(half):
    caches, names = half.dropped()
    for context in ("full", "no_text"):
        order = np.asarray(half.caches[context]["meta"]["token_index"][0])
        places = {int(order[n]): n for n in np.flatnonzero(half.names[context][0] >= TEXT)}
        for n in np.flatnonzero(names[context][0] >= TEXT):
            old = places[int(caches[context]["meta"]["token_index"][0, n])]
            assert names[context][0, n] == half.names[context][0, old]
            for part in ("k", "v"):
                new, whole = caches[context][part], half.caches[context][part]
                np.testing.assert_array_equal(new[:, 0, n], whole[:, 0, old])


def test_the_tokens_with_the_highest_scores_are_kept(half):
    names = half.names["full"][0]
    images = image_of(names)
    total = (half.total() + np.asarray(half.plan_found[0]).sum(axis=0)[0]) / 2
    meta = half.caches["full"]["meta"]
    plan = {name: values[:1] for name, values in half.plans["meta"].items()}
    seen = np.asarray(attention_mask(meta, meta))[0]
    other = (images[:, None] >= 0) & (images[:, None] != images)
    counts = np.stack([seen[images < 0].sum(axis=0), (seen & other).sum(axis=0)])
    counts[0] += np.asarray(attention_mask(plan, meta))[0].sum(axis=0)
    # The last image is seen by text alone: its own end token, the thought and the layout.
    assert (counts[0][images == 2] > 60).all() and not counts[1][images == 2].any()
    score = (total / np.maximum(counts, 1)).sum(axis=0)
    kept = set(half.dropped()[1]["full"][0].tolist())
    for number, quota in enumerate(half.choice.quotas[0]):
        mine = np.flatnonzero(images == number)
        best = sorted(mine, key=lambda n: -score[n])[:quota]
        assert kept & set(names[mine].tolist()) == set(names[best].tolist())


def test_budgets_are_dealt_and_checked():
    prompt = prompt_of([edit()], CONTEXTS)
    assert choice_of(TokenSelection(budget=19), prompt, CONFIG).quotas.sum() == 19
    assert choice_of(None, prompt, CONFIG) is None
    with pytest.raises(UserError, match=r"token_selection.budget=2: 3 images .* need 3"):
        choice_of(TokenSelection(budget=2), prompt, CONFIG)
    with pytest.raises(UserError, match=r"token_selection.layers=\(5,\): the model's layers are 0 to 1"):
        choice_of(TokenSelection(keep=0.5, layers=(5,)), prompt, CONFIG)


def test_a_plan_decides_too_and_is_the_first_candidates(half):
    """Scores come from prompt and plan; other candidates' plans change nothing, so an image follows from its key."""
    one = Read([edit()], HALF, PLANS[:1])
    np.testing.assert_allclose(half.plan_found[0], one.plan_found[0], atol=1e-6)
    np.testing.assert_array_equal(half.dropped()[1]["full"], one.dropped()[1]["full"])


def test_keeping_everything_by_budget_draws_the_same_image():
    whole, chosen = pipeline(), pipeline(token_selection=TokenSelection(budget=1000))
    call = {"instruction": "A <image 1> by <image 2>.", "images": [random_image(1), random_image(2)], "plan": PLANS[0]}
    a, b = whole.compose(**call), chosen.compose(**call)
    assert "select" in b.seconds and "select" not in a.seconds
    assert np.abs(a.pixels.astype(int) - b.pixels).max() <= 1
    fewer = whole.compose(**call, token_selection=TokenSelection(keep=0.25))
    assert (fewer.pixels != a.pixels).any()


@pytest.mark.slow
def test_sentences_in_one_batch_are_what_they_are_alone():
    """Another number and other sizes of images beside it, subjects or none: each result is its own."""
    three = Sentence((*sentence().spans[:-1], Text("and "), Image(random_image(4, 32, 16), subject=3, number=3),
                      Target(size=(64, 64))))  # fmt: skip
    none = Sentence((Text("An owl."), Target(size=(64, 64))))
    sentences, drawing = [sentence(), three, none], pipeline(token_selection=TokenSelection(keep=0.5))
    together = drawing.compose_batch(sentences, candidates=2, seeds=[3, 4, 5])
    for number, result in enumerate(together):
        alone = drawing.compose_sentence(sentences[number], candidates=2, seed=3 + number)
        assert [c.plan for c in result.candidates] == [c.plan for c in alone.candidates]
        for a, b in zip(result.candidates, alone.candidates, strict=True):
            assert a.score == pytest.approx(b.score, rel=1e-4)
            assert np.abs(a.pixels.astype(int) - b.pixels).max() <= 1


def test_lots_and_seeds():
    """A token's lot follows from its image and place, wherever it lies; seeds may have 64 bits."""
    from macro.models.token_selection import scores

    lot = TokenSelection(keep=0.5, method="random")
    own = jnp.asarray([[-1] * 3 + [0] * 4 + [1] * 2, [-1] * 5 + [0] * 4], jnp.int32)
    keys = jnp.stack([jax.random.key(3_000_000_000)] * 2)
    nothing = jnp.zeros((2, 2, 9)), jnp.zeros((1, 2, 9, 1, 1))
    drawn, _ = scores(lot, None, *nothing, own, jnp.ones((2, 2), jnp.int32), keys)
    np.testing.assert_array_equal(drawn[0, 3:7], drawn[1, 5:])
    assert len(set(np.asarray(drawn[0, 3:]).tolist())) == 6


def test_strengths_of_images_after_a_target():
    a, b, c = (Image(random_image(n)) for n in (1, 2, 3))
    spans = Text("x"), a, Target(random_image(4, 64, 64)), Text("y"), b, a, c, Target(size=(64, 64))
    assert by_span(Sentence(spans), [1.0, 2.0, 3.0, 4.0]) == [1.0, 1.0, 2.0, 3.0, 4.0, 1.0]


def test_strengths():
    drawing = pipeline()
    call = {"instruction": "A <image 1> by <image 2>.", "images": [random_image(1), random_image(2)], "plan": PLANS[0]}
    plain = drawing.compose(**call)
    np.testing.assert_array_equal(drawing.compose(**call, strengths=[1.0, 1.0]).pixels, plain.pixels)
    stronger = drawing.compose(**call, strengths=[1.0, 3.0])
    assert (stronger.pixels != plain.pixels).any()
    for bad, said in (([1.0], "1 for 2 images"), ([1.0, -1.0], "at least 0"), ([1.0, float("nan")], "at least 0")):
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
        (dict(), "give either keep or budget"), (dict(keep=0.5, budget=9), "give either keep or budget"),
        (dict(keep=0.0), "token_selection.keep"), (dict(keep=1.2), "token_selection.keep"),
        (dict(keep=0.5, min_tokens=0), "token_selection.min_tokens"),
        (dict(keep=0.5, method="best"), "token_selection.method='best'"),
    ],
)  # fmt: skip
def test_bad_selections(fields, said):
    with pytest.raises(UserError, match=said):
        TokenSelection(**fields)
