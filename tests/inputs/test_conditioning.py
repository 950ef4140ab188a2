"""Contexts, condition dropout, and the probability with which training shows each context."""

from collections import Counter

import numpy as np
import pytest

from macro.inputs.conditioning import CONTEXTS, CfgDropout, context_mask
from macro.sentence.spans import Image, Plan, Sentence, Target, Text
from macro.utils.errors import UserError

PER_ITEM = CfgDropout("per_item")


def prompt(images, plan=False):
    pixels = np.zeros((4, 4, 3), np.uint8)
    spans = [span for n in range(images) for span in (Text(f"{n} "), Image(pixels))]
    return Sentence((*spans, Text("."), *((Plan("x"),) if plan else ()), Target(pixels)))


def test_contexts_name_their_spans(make_sentence):
    one = make_sentence(0, subjects=2)
    text = {i for i, span in enumerate(one) if isinstance(span, Text | Plan)}
    images = {i for i, span in enumerate(one) if isinstance(span, Image)}
    masks = {context: context_mask(context, one) for context in CONTEXTS}
    assert {context: set(mask.text) == text for context, mask in masks.items()} == {
        "full": False, "no_text": True, "no_image": False, "null": True,
    }  # fmt: skip
    assert [mask.vit >= images and mask.vae >= images for mask in masks.values()] == [False, False, True, True]
    assert [mask.scored for mask in masks.values()] == [True, False, False, False]
    assert [mask.bound for mask in masks.values()] == [True, False, True, False]
    with pytest.raises(ValueError, match="no_words"):
        context_mask("no_words", one)


def test_without_text_nothing_is_bound_though_the_prompt_is_images_alone(make_image):
    """A prompt that is only `<image 1>` has no text span that could be dropped."""
    alone = Sentence((Image(make_image(0, 16, 16), subject=1), Target(make_image(1, 32, 32))))
    assert not context_mask("no_text", alone).bound and context_mask("no_image", alone).bound


def test_shares_of_the_joint_dropout(make_sentence):
    rng, one = np.random.default_rng(0), make_sentence(0)
    dropout = CfgDropout(no_text=0.1, no_image=0.2, null=0.3)
    masks = {context_mask(context, one): context for context in CONTEXTS}
    drawn = Counter(masks[dropout.sample(rng, one)] for _ in range(4000))
    for context, share in dropout.probabilities(one).items():
        assert abs(drawn[context] / 4000 - share) < 0.03
    talk = one.replace(spans=(Text("what"), Text("dog", learn=True)))
    assert all(CfgDropout(null=1.0, no_text=0.0, no_image=0.0).sample(rng, talk).scored for _ in range(9))


def test_item_dropout_is_independent_and_spares_what_is_trained_on(make_sentence):
    rng, one = np.random.default_rng(0), make_sentence(0, subjects=2)
    one = one.replace(spans=(*one.spans, Text("answer", learn=True)))
    drawn = [CfgDropout("per_item", per_item=(0.5, 0.5, 0.5)).sample(rng, one) for _ in range(400)]
    first = [(0 in d.text, 1 in d.vit, 1 in d.vae) for d in drawn]
    assert len(set(first)) == 8 and min(Counter(first).values()) > 25
    supervised = {i for i, span in enumerate(one) if isinstance(span, Plan) or isinstance(span, Text) and span.learn}
    assert len(supervised) == 2 and not any(supervised & d.text for d in drawn)
    assert all(d.scored and d.bound for d in drawn)


@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("dropout", [CfgDropout(), PER_ITEM], ids=["joint", "per_item"])
def test_probabilities_are_the_shares_that_are_drawn(images, dropout):
    """Of the tokens that are left: without images `no_text` leaves what `null` leaves."""
    sentence, rng, count = prompt(images), np.random.default_rng(1), 6000

    def left(mask):
        kept = [i for i, span in enumerate(sentence) if isinstance(span, Text) and i not in mask.text]
        shown = [i for i, span in enumerate(sentence) if isinstance(span, Image)]
        return tuple(kept), tuple((i not in mask.vit, i not in mask.vae) for i in shown)

    drawn = Counter(left(dropout.sample(rng, sentence)) for _ in range(count))
    for context, probability in dropout.probabilities(sentence).items():
        assert abs(drawn[left(context_mask(context, sentence))] / count - probability) < 0.03


def test_per_item_dropout_hardly_ever_shows_the_contexts_of_many_references():
    for images, without_text in ((1, 5e-3), (6, 2e-9)):
        assert PER_ITEM.probabilities(prompt(images))["no_text"] == pytest.approx(without_text, rel=0.5)
        assert CfgDropout().probabilities(prompt(images))["no_text"] == 0.1
    assert PER_ITEM.probabilities(prompt(2, plan=True))["no_text"] == 0  # a plan is trained on, and stays


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mode": "both"}, "cfg_dropout.mode='both': must be one of joint, per_item"),
        ({"no_text": 0.9}, "must be 1 at most"),
        ({"per_item": (0.1, 0.3)}, "per_item=.*3 shares"),
    ],
)
def test_impossible_shares_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        CfgDropout(**changes)
