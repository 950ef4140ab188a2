"""Sizes by BAGEL's rule, patches, and the shares of condition dropout."""

from collections import Counter

import numpy as np
import pytest

from macro.inputs.transforms import draw_context, draw_items, drawn_size, dropped_in, fit_size, patchify
from macro.sentence.spans import Image, Plan, Text
from macro.utils.errors import UserError
from macro.utils.images import save


def test_fit_size_by_hand():
    assert fit_size(64, 64, max_side=64, stride=16) == (64, 64)
    assert fit_size(400, 300, max_side=64, stride=16) == (64, 48)
    assert fit_size(8, 8, max_side=64, stride=16) == (16, 16)
    assert fit_size(10, 1000, max_side=64, stride=16) == (16, 64)
    assert fit_size(100, 200, max_side=1024, stride=16, min_side=512) == (512, 1024)


def test_an_edit_is_drawn_in_the_shape_of_its_source(tmp_path):
    buckets = ((128, 128, 3), (96, 160, 1), (160, 96, 1))
    assert drawn_size(buckets) == (128, 128)
    assert drawn_size(buckets, np.zeros((300, 310, 3), np.uint8)) == (128, 128)
    assert drawn_size(buckets, np.zeros((30, 60, 3), np.uint8)) == (96, 160)
    save(tmp_path / "tall.png", np.zeros((60, 30, 3), np.uint8))
    assert drawn_size(buckets, tmp_path / "tall.png") == (160, 96)
    with pytest.raises(UserError, match="none.png"):
        drawn_size(buckets, tmp_path / "none.png")


def test_patches_are_row_major_and_in_minus_one_to_one():
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    patches = patchify(pixels, 2)
    assert patches.shape == (6, 12) and patches.dtype == np.float32
    np.testing.assert_allclose(patches[4], (pixels[2:4, 2:4].reshape(-1) / 255 - 0.5) / 0.5, atol=1e-6)


def test_contexts_name_their_spans(make_sentence):
    one = make_sentence(0, subjects=2)
    words = {i for i, span in enumerate(one) if isinstance(span, Text | Plan)}
    pictures = {i for i, span in enumerate(one) if isinstance(span, Image)}
    assert dropped_in("full", one).spans == frozenset() and dropped_in("full", one).scored
    assert dropped_in("no_text", one).spans == words and not dropped_in("no_text", one).vision
    assert dropped_in("no_image", one).vision >= pictures and not dropped_in("no_image", one).spans
    null = dropped_in("null", one)
    assert null.spans == words and null.vision >= pictures and null.clean >= pictures and not null.scored
    with pytest.raises(ValueError, match="no_words"):
        dropped_in("no_words", one)


def test_shares_of_the_joint_dropout(make_sentence):
    rng, one = np.random.default_rng(0), make_sentence(0)
    drawn = Counter(draw_context(rng, one, 0.1, 0.2, 0.3) for _ in range(4000))
    for context, share in {"full": 0.4, "no_text": 0.1, "no_image": 0.2, "null": 0.3}.items():
        assert abs(drawn[context] / 4000 - share) < 0.03


def test_item_dropout_is_independent_and_spares_what_is_learnt(make_sentence):
    rng, one = np.random.default_rng(0), make_sentence(0, subjects=2)
    one = one.replace(spans=(*one.spans, Text("answer", learn=True)))
    drawn = [draw_items(rng, one, 0.5, 0.5, 0.5) for _ in range(400)]
    first = [(0 in d.spans, 1 in d.vision, 1 in d.clean) for d in drawn]
    assert len(set(first)) == 8 and min(Counter(first).values()) > 25
    assert not any(len(one) - 1 in d.spans for d in drawn) and all(d.scored for d in drawn)
