"""Selection and strengths in BAGEL's mode."""

import numpy as np
import pytest
from sampling.bagel.toy import FIRST, PIECES, PIPELINE, SECOND, TOKENIZER, contexts_of

from macro.models.selection import METHODS, Selection
from macro.sampling.bagel.contexts import WORD, picture_of
from macro.sampling.bagel.select import select
from macro.utils.errors import UserError

HALF = Selection(keep=0.5, layers=(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parity", [False, True])
def test_every_context_keeps_the_same_tokens_and_all_words(method, parity):
    contexts = contexts_of(PIECES, parity=parity, selection=Selection(keep=0.5, method=method))
    before = {name: context.tokens for name, context in contexts.of.items()}
    counts = np.bincount(picture_of(before["full"])[before["full"] >= 0])
    assert counts.tolist() == [15 + 18, 10 + 12]  # latents and patches
    select(contexts, Selection(keep=0.5, method=method), 0)
    kept = set(contexts.of["full"].tokens[contexts.of["full"].tokens >= 0].tolist())
    shares = np.bincount([token >> 20 for token in kept])
    assert shares.sum() == 17 + 11 and (method == "images" or shares.tolist() == [17, 11])
    for name, context in contexts.of.items():
        mine = set(before[name][before[name] >= 0].tolist())
        assert set(context.tokens[context.tokens >= 0].tolist()) == mine & kept
        assert np.sum(context.tokens == WORD) == np.sum(before[name] == WORD)
        assert np.array_equal(np.asarray(context.cache["meta"]["sample"][0]) >= 0, context.tokens >= WORD)


def test_keys_go_with_their_tokens():
    contexts = contexts_of(PIECES, selection=HALF)
    before = dict(contexts.of)
    select(contexts, HALF, 0)
    for name, context in contexts.of.items():
        places = {token: n for n, token in enumerate(before[name].tokens) if token >= 0}
        for n, token in enumerate(context.tokens):
            if token >= 0:
                for part in ("k", "v"):
                    old, new = before[name].cache[part], context.cache[part]
                    np.testing.assert_array_equal(new[:, 0, n], old[:, 0, places[token]])


def test_who_looks_is_counted_piece_by_piece():
    """The last picture is seen by its own framing tokens and the words after it; the first one by the second, too."""
    full = contexts_of(PIECES, selection=HALF).of["full"]
    picture, counts, heard = picture_of(full.tokens), np.asarray(full.counts), np.asarray(full.heard)
    words = len(TOKENIZER.encode("and two")) + 2
    assert counts[0, picture == 1].max() == words + 4  # for latents: frames of both copies
    assert counts[1, picture == 1].max() == 0 and counts[1, picture == 0].max() == 22
    assert not heard[:, picture < 0].any() and (heard[0, picture >= 0] > 0).all()
    # Two layers, each query gives at most 1 in all.
    assert heard[0].sum() < 2 * counts[0].max() * 2


@pytest.mark.slow
def test_keeping_all_and_strength_one_change_nothing():
    plain = PIPELINE.interleave(PIECES).latents
    same = PIPELINE.interleave(PIECES, select={"budget": 10_000}, strengths=[1.0, 1.0])
    np.testing.assert_allclose(same.latents, plain, atol=1e-4 * np.abs(plain).max())
    assert "select" in same.seconds
    for changes in ({"select": {"keep": 0.2}}, {"strengths": [1.0, 3.0]}):
        other = PIPELINE.interleave(PIECES, **changes).latents
        assert np.abs(other - plain).max() > 1e-3 * np.abs(plain).max()


def test_strengths_follow_the_numbers_of_pictures():
    call = {"images": [FIRST, SECOND], "strengths": [3.0, 1.0]}
    one, other = (PIPELINE.compose(words, **call) for words in ("<image 1> by <image 2>", "<image 2> by <image 1>"))
    assert one.strengths == other.strengths == (3.0, 1.0)
    pieces = [SECOND, " by ", FIRST]
    latents = PIPELINE.interleave(pieces, strengths=[1.0, 3.0], size=other.pixels.shape[:2])
    np.testing.assert_array_equal(latents.pictures[0], other.pixels)


@pytest.mark.parametrize(("changes", "said"), [
    ({"select": {"keep": 2.0}}, "select.keep"), ({"select": {"budget": 1}}, "select.budget=1: 2 pictures"),
    ({"strengths": [1.0]}, "strengths: 1 for 2 pictures"), ({"select": {"keeps": 0.5}}, "unknown key 'keeps'"),
])  # fmt: skip
def test_mistakes_are_named(changes, said):
    with pytest.raises(UserError, match=said):
        PIPELINE.interleave(PIECES, **changes)
