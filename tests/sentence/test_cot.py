"""The plan's text form: lenient with thoughts, strict with layouts, and clear about what is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.sentence.cot import read_plan_text, read_think, refuse_marks, write_plan_text, write_think
from macro.utils.errors import UserError

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
words = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "think>" not in text)
CELLS = "<cell 0>" * 64


@QUICK
@given(words, st.none() | st.lists(st.integers(0, 12), min_size=64, max_size=64))
def test_text_is_read_back(cot, cells):
    assert read_plan_text(write_plan_text(cot, cells)) == (cot, cells)
    assert read_think(write_think(cot)) == cot


def test_space_between_the_marks_is_allowed():
    text = f" <think>a b</think>\n<layout>\n{'<cell 3> ' * 64}\n</layout>\n"
    assert read_plan_text(text) == ("a b", [3] * 64)


@pytest.mark.parametrize(
    ("text", "cot"),
    [
        ("<think>an owl", "an owl"),
        ("an owl</think> and more", "an owl"),
        ("an owl", "an owl"),
        ("noise<think>an <think>owl<layout></think>", "an owl"),
        ("", ""),
    ],
)
def test_broken_off_thoughts_are_still_read(text, cot):
    assert read_think(text) == cot


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("an owl", "must start with <think>"),
        ("<think>an owl", "</think> is missing"),
        ("<think>a</think> so be it", "may follow"),
        (f"<think>a</think><layout>{CELLS}", "may follow"),
        (f"<think>a</think><layout>{CELLS}owl</layout>", "'owl' in the layout"),
        (f"<think>a</think><layout>{CELLS}<cell 0></layout>", "65 cells"),
        ("<think>a</think><layout></layout>", "0 cells"),
        (f"<think>a</think><layout>{CELLS[:-8]}<cell 13></layout>", "<cell 13> names no subject"),
    ],
)
def test_errors_name_what_is_wrong(text, says):
    with pytest.raises(UserError) as error:
        read_plan_text(text)
    assert says in str(error.value)


@pytest.mark.parametrize("mark", ["<think>", "</think>", "<layout>", "</layout>", "<cell 4>"])
def test_a_thought_may_not_hold_marks(mark):
    with pytest.raises(UserError, match=mark):
        refuse_marks(f"an {mark} owl")
    refuse_marks("an owl > a mouse, <3")
