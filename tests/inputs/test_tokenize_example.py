"""Order, span, mode and RoPE ids, counted by hand on small sentences."""

import numpy as np
import pytest

from macro.inputs.conditioning import CONTEXTS, CfgDropout
from macro.inputs.packing import PackingConfig, pack_sentence, pack_target
from macro.inputs.tokenize_example import patchify
from macro.sentence.attention_mask import CAUSAL, FULL, NOISE, mask_mod
from macro.sentence.layout import layout_to_token_weights
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError

C, F, N = CAUSAL, FULL, NOISE


def config(**changes):
    """Without condition dropout, unless `changes` name a context's probability."""
    dropout = {name: changes.pop(name, 0.0) for name in CONTEXTS[1:]}
    values = {
        "text": 400, "vision": 100, "latent": 100, "samples": 4, "buckets": ((32, 32, 4), (32, 64, 2)),
        "noise_draws": 1, "reference_max_side": 32, "cfg_dropout": CfgDropout(**dropout),
    }  # fmt: skip
    return PackingConfig(**(values | changes))


def in_order(packed):
    """All tokens as (stream, span, mode, rope) in the order of the sentence."""
    tokens = {}
    for stream in ("text", "vision", "latent"):
        values = getattr(packed, stream)
        for i, order in enumerate(values.get("token_index", ())):
            assert order not in tokens
            tokens[int(order)] = (
                stream[0],
                *(int(values[name][i]) for name in ("block_id", "mask_mode", "position_ids")),
            )
    assert sorted(tokens) == list(range(len(tokens)))
    return [tokens[order] for order in sorted(tokens)]


def test_reference_text_and_target(tokenizer, make_image):
    one = Sentence(
        (Text("ab"), Image(make_image(0, 16, 32), subject=3), Text("c"), Target(make_image(1, 32, 32)))
    )
    packed = pack_sentence(one, tokenizer, config(noise_draws=2), np.random.default_rng(0))
    assert in_order(packed) == (
        [("t", 0, C, 0), ("t", 0, C, 1), ("t", 0, C, 2), ("t", 0, C, 3)]  # bos a b eos
        + [("t", 1, F, 4), ("v", 1, F, 4), ("v", 1, F, 4), ("t", 1, F, 4)]  # start, two patches, end
        + [("t", 2, C, 5), ("t", 2, C, 6), ("t", 2, C, 7)]  # bos c eos
        + [("t", 3, N, 8), *[("l", 3, N, 8)] * 4, ("t", 3, N, 8)]  # the target once
        + [("t", 4, N, 8), *[("l", 4, N, 8)] * 4, ("t", 4, N, 8)]  # and again, at another time
    )
    assert packed.text["ids"].tolist()[:8] == [300, 97, 98, 301, 302, 303, 300, 99]
    assert packed.vision["position"].tolist() == [0, 1] and packed.vision["subject"].tolist() == [3, 3]
    assert packed.latent["position"].tolist() == [0, 1, 64, 65] * 2
    assert packed.latent["copy"].tolist() == [0] * 4 + [1] * 4 and len(packed.pixels) == 1
    assert packed.latent["loss"].all() and len(set(packed.latent["t_raw"].tolist())) == 2
    assert (packed.text["labels"] == -1).all()  # nothing here is learnt


def test_target_with_text_after_it_is_noised_then_clean_then_seen(tokenizer, make_image):
    one = Sentence((Text("a"), Target(make_image(0, 32, 32)), Text("yes", learn=True)))
    packed = pack_sentence(one, tokenizer, config(), np.random.default_rng(0))
    assert in_order(packed) == (
        [("t", 0, C, 0), ("t", 0, C, 1), ("t", 0, C, 2)]
        + [("t", 1, N, 3), *[("l", 1, N, 3)] * 4, ("t", 1, N, 3)]  # noised: RoPE stays
        + [("t", 2, F, 3), *[("l", 2, F, 3)] * 4, ("t", 2, F, 3)]  # clean
        + [("t", 3, F, 4), *[("v", 3, F, 4)] * 4, ("t", 3, F, 4)]  # seen
        + [("t", 4, C, rope) for rope in range(5, 10)]
    )
    assert packed.latent["loss"].tolist() == [True] * 4 + [False] * 4
    assert np.isneginf(packed.latent["t_raw"]).tolist() == [False] * 4 + [True] * 4
    assert packed.latent["slot"].tolist() == [0] * 8  # both copies share their pixels
    learnt = packed.text["labels"] >= 0
    assert packed.text["labels"][learnt].tolist() == [ord("y"), ord("e"), ord("s"), 301]
    assert packed.text["ids"][learnt].tolist() == [300, ord("y"), ord("e"), ord("s")]
    assert (packed.text["weights"] == learnt).all()


def test_reweighting_lets_long_texts_rule_less(tokenizer, make_image):
    one = Sentence((Text("four", learn=True), Text("a longer one to learn", learn=True), Text("given")))
    weights = pack_sentence(one, tokenizer, config(length_normalized_ce=True), np.random.default_rng(0)).text["weights"]
    learnt = weights[weights > 0]
    np.testing.assert_allclose(learnt, [5**-0.5] * 5 + [22**-0.5] * 22)  # [eos] is predicted too


def test_source_and_configured_references_have_a_clean_copy_before_the_vit_copy(tokenizer, make_image):
    edit = Sentence(
        (Image(make_image(0, 64, 120), role="source"), Text("x"), Target(make_image(1, 32, 32)))
    )
    packed = pack_sentence(edit, tokenizer, config(), np.random.default_rng(0))
    kinds = [token[0] for token in in_order(packed)]
    assert "".join(kinds) == "t" + "l" * 8 + "tt" + "vv" + "t" + "ttt" + "t" + "llll" + "t"
    assert [bucket for bucket, _ in packed.pixels] == [1, 0]  # 64 x 120 is nearest to 32 x 64
    assert packed.pixels[0][1].shape == (32, 64, 3)
    reference = Sentence((Image(make_image(0, 16, 16)), Target(make_image(1, 32, 32))))
    only_seen = pack_sentence(reference, tokenizer, config(), np.random.default_rng(0))
    both = pack_sentence(reference, tokenizer, config(reference_vae=True), np.random.default_rng(0))
    assert len(only_seen.latent["token_index"]) == 4 and len(both.latent["token_index"]) == 8
    assert in_order(both)[-1][3] == 2 and in_order(only_seen)[-1][3] == 1  # two images' worth of RoPE


def test_plan_is_learnt_whole_and_bound(tokenizer, make_sentence):
    one = make_sentence(3, subjects=2)
    packed = pack_sentence(one, tokenizer, config(), np.random.default_rng(0))
    plan = [tokenizer.bos, *one.plan.tokens(tokenizer), tokenizer.eos]
    learnt = packed.text["labels"] >= 0
    assert packed.text["ids"][learnt].tolist() == plan[:-1]
    assert packed.text["labels"][learnt].tolist() == plan[1:]
    np.testing.assert_array_equal(packed.latent["subjects"], layout_to_token_weights(one.plan.grid, 2, 2))
    assert packed.vision["subject"].tolist() == [1, 2]
    unbound = pack_sentence(one, tokenizer, config(binding=False), np.random.default_rng(0))
    assert not unbound.latent["subjects"].any() and not unbound.vision["subject"].any()


@pytest.mark.parametrize("context", ["no_text", "no_image", "null"])
def test_contexts(context, tokenizer, make_sentence):
    one = make_sentence(3, subjects=2)
    settings = config(**{context: 1.0})
    packed = pack_sentence(one, tokenizer, settings, np.random.default_rng(0))
    words = sum(2 + len(span.text) for span in one if isinstance(span, Text))
    words += 2 + len(one.plan.tokens(tokenizer))
    has_text, has_images = context == "no_image", context == "no_text"
    assert (packed.text["mask_mode"] == CAUSAL).sum() == words * has_text
    assert len(packed.vision.get("token_index", ())) == 2 * has_images
    # A dropped image still moves RoPE by 1, dropped text does not.
    assert set(packed.latent["position_ids"].tolist()) == {2 + words * has_text}
    assert not packed.text["weights"].any()
    assert packed.latent["subjects"].any() == has_text
    assert not packed.vision.get("subject", np.zeros(1)).any()
    assert packed.latent["loss"].all()


def test_sentences_without_a_target_are_never_cut(tokenizer, make_image):
    talk = Sentence((Image(make_image(0, 16, 16)), Text("what"), Text("dog", learn=True)))
    packed = pack_sentence(talk, tokenizer, config(null=1.0), np.random.default_rng(0))
    assert len(packed.vision["token_index"]) == 1 and packed.text["weights"].sum() == 4 and packed.latent == {}


def test_sampling_sees_the_same_context_as_training(tokenizer, make_sentence):
    one = make_sentence(5, subjects=3)
    for context in ("full", "no_text", "no_image", "null"):
        trained = pack_sentence(
            one, tokenizer, config(**({} if context == "full" else {context: 1.0})), np.random.default_rng(0)
        )
        given = pack_sentence(one, tokenizer, config(), context=context)
        n = len(given.text.get("token_index", ()))
        for name in ("ids", "token_index", "block_id", "mask_mode", "position_ids"):
            if n:
                np.testing.assert_array_equal(given.text[name], trained.text[name][:n])
        assert given.latent == {}
        plan = one.plan if context in ("full", "no_image") else None
        target = pack_target(given.cursor, (32, 32), tokenizer, config(), plan)
        for name in ("token_index", "block_id", "mask_mode", "position_ids", "position", "subjects"):
            np.testing.assert_array_equal(target["latent"][name], trained.latent[name])
        for name in ("ids", "token_index", "block_id", "mask_mode", "position_ids"):
            np.testing.assert_array_equal(target["text"][name], trained.text[name][n:])


def test_sight_of_a_packed_sentence(tokenizer, make_image):
    one = Sentence(
        (Text("a"), Image(make_image(0, 16, 16)), Target(make_image(1, 32, 32)), Text("b", learn=True))
    )
    packed = pack_sentence(one, tokenizer, config(noise_draws=2), np.random.default_rng(0))
    fields = ("token_index", "block_id", "mask_mode")
    meta = {f: np.concatenate([getattr(packed, s)[f] for s in ("text", "vision", "latent")]) for f in fields}
    meta["segment_ids"] = np.zeros_like(meta["token_index"])
    sees = mask_mod({k: v[:, None] for k, v in meta.items()}, {k: v[None] for k, v in meta.items()})
    noise, last = meta["mask_mode"] == NOISE, meta["block_id"] == meta["block_id"].max()
    other = meta["block_id"][:, None] != meta["block_id"][None]
    assert not (sees & noise[None] & other).any()  # nobody looks into a noised copy
    assert sees[noise][:, meta["block_id"] <= 1].all()  # which sees what came before
    assert sees[last][:, ~noise & ~last].all()  # as the answer does, clean target and all


def test_unloaded_image_is_named(tokenizer):
    one = Sentence((Image(path="dog.png"), Text("x"), Target(size=(32, 32))))
    with pytest.raises(UserError, match="dog.png"):
        pack_sentence(one, tokenizer, config())


def test_plan_without_a_grid_binds_nothing(tokenizer, make_image):
    one = Sentence((Text("x"), Plan("thought"), Target(make_image(0, 32, 32))))
    packed = pack_sentence(one, tokenizer, config(), np.random.default_rng(0))
    assert not packed.latent["subjects"].any() and packed.text["weights"].sum() > len("thought")


def test_a_thought_that_can_never_be_decoded_is_not_trained_on(tokenizer, make_image):
    """The decoder's grammar has no '<' but that of </think>; a plan that is handed in may have it."""
    one = Sentence((Text("x"), Plan("the <image 1> dog"), Target(make_image(0, 32, 32))), idx=7)
    with pytest.raises(UserError, match=r"sentence 7 \(task compose\): its chain of thought holds '<image 1> do'"):
        pack_sentence(one, tokenizer, config(), np.random.default_rng(0))
    assert len(pack_sentence(one, tokenizer, config()).text["ids"])


def test_patches_are_row_major_and_in_minus_one_to_one():
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    patches = patchify(pixels, 2)
    assert patches.shape == (6, 12) and patches.dtype == np.float32
    np.testing.assert_allclose(patches[4], (pixels[2:4, 2:4].reshape(-1) / 255 - 0.5) / 0.5, atol=1e-6)
