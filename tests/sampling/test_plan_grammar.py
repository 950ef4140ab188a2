import numpy as np
import pytest
from sampling.toy import PIECES, TOKENIZER

from macro.sampling.plan_decoding import CELL, CLOSED, plan_grammar

GRAMMAR = plan_grammar(TOKENIZER, 160, 2)


def _follow(*pieces: str) -> int:
    """The count after these tokens, -1 if one of them may not be written."""
    count = 0
    for piece in pieces:
        count = int(GRAMMAR["transitions"][count, PIECES.index(piece)])
        if count < 0:
            return -1
    return count


@pytest.mark.parametrize(
    "pieces",
    [
        ("</think>",),
        tuple("</think>"),
        ("a", ".</", "think", ">"),
        ("on <", "/", "think", ">"),
        (".</", *"think>"),
    ],
)
def test_every_cut_of_the_closing_mark_closes(pieces):
    assert _follow(*pieces) == CLOSED


@pytest.mark.parametrize(
    "pieces", [("<", "a"), ("<", "</think>"), (".</", " the"), (".</", "t", "think"), ("<", "/", "></")]
)
def test_a_mark_that_does_not_close_is_refused(pieces):
    assert _follow(*pieces) == -1


def test_nothing_may_stand_behind_the_closing_mark_in_its_token():
    assert _follow(".</", *"thin", "k>x") == -1


def test_ordinary_text_stays_open():
    assert _follow(" the", "a", ">", ".", "k>x") == 0


def test_marks_and_unknown_ids_are_never_text():
    marks = [TOKENIZER.bos, TOKENIZER.eos, TOKENIZER.image_start, TOKENIZER.layout_start, *TOKENIZER.cells]
    assert (GRAMMAR["transitions"][:, marks] == -1).all()
    assert (GRAMMAR["transitions"][:, TOKENIZER.vocab_size :] == -1).all()


def test_layout_names_background_and_the_subjects_there_are():
    assert np.flatnonzero(GRAMMAR["cells"]).tolist() == list(TOKENIZER.cells[:3])
    assert (GRAMMAR["tail"] == CELL).sum() == 64
    assert GRAMMAR["tail"][[0, -2, -1]].tolist() == [
        TOKENIZER.layout_start,
        TOKENIZER.layout_end,
        TOKENIZER.eos,
    ]


def test_without_subjects_there_is_no_layout():
    assert plan_grammar(TOKENIZER, 160, 0)["tail"].tolist() == [TOKENIZER.eos]
