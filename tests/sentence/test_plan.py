"""Plans: every form is read back exactly, a person's mistakes are named, and the image shows the grid."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.sentence.plan import Plan, parse_think, validate_cot, wrap_think
from macro.utils.errors import UserError
from macro.utils.images import LABEL_COLOURS

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
grids = st.lists(st.integers(0, 12), min_size=64, max_size=64).map(
    lambda cells: np.array(cells, np.int8).reshape(8, 8)
)
words = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "think>" not in text)
plans = st.builds(Plan, words, st.none() | grids)


class ByteTokenizer:
    """One id a byte, then bos, eos, the layout marks and the 13 cells."""

    bos, eos, layout_start, layout_end = 256, 257, 258, 259
    cells = tuple(range(260, 273))

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode()


TOKENIZER = ByteTokenizer()
GRID = np.repeat(np.arange(8, dtype=np.int8)[:, None], 8, axis=1)


@QUICK
@given(plans)
def test_json_is_read_back(plan):
    assert Plan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json()) == {
        "cot": plan.cot,
        "grid": None if plan.grid is None else plan.grid.tolist(),
    }


@QUICK
@given(plans)
def test_tokens_are_read_back(plan):
    ids = plan.tokens(TOKENIZER)
    assert Plan.from_tokens(ids, TOKENIZER) == plan
    assert Plan.from_tokens([TOKENIZER.bos, *ids, TOKENIZER.eos], TOKENIZER) == plan


def test_tokens_stand_in_the_order_of_the_text():
    ids = Plan("an owl", GRID).tokens(TOKENIZER)
    layout = [258, *(260 + GRID.ravel().astype(int)), 259]
    assert ids == [*b"<think>an owl</think>", *layout]
    assert Plan("an owl").tokens(TOKENIZER) == [*b"<think>an owl</think>"]


def test_a_thought_that_broke_off_is_read_but_a_layout_must_be_whole():
    layout = Plan("", GRID).tokens(TOKENIZER)[len("<think></think>") :]
    assert Plan.from_tokens([*b"<think>an owl", *layout], TOKENIZER) == Plan("an owl", GRID)
    for broken in (layout[:-1], layout[:-2], [*layout[:5], 65, *layout[5:]], [*layout, 65], layout[:1]):
        with pytest.raises(UserError, match="plan tokens: .* exactly 64 cells"):
            Plan.from_tokens([*b"<think></think>", *broken], TOKENIZER)


def test_plans_differ_by_words_and_by_one_cell():
    other = GRID.copy()
    other[7, 7] = 1
    assert Plan("a", GRID) == Plan("a", GRID.copy()) and hash(Plan("a", GRID)) == hash(Plan("a", GRID.copy()))
    assert Plan("a", GRID) not in (Plan("b", GRID), Plan("a", other), Plan("a"), "a")
    assert Plan("a") == Plan("a")
    assert Plan("a", GRID).named == (1, 2, 3, 4, 5, 6, 7) and Plan("a").named == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "must be"),
        ('{"grid": null}', "must be"),
        ('{"cot": 3, "grid": null}', "must be"),
        ('{"cot": "a", "gird": null}', "unknown field 'gird'"),
        (json.dumps({"cot": "a", "grid": [[0] * 8] * 9}), "it is 9 rows of 8"),
        (json.dumps({"cot": "a", "grid": [[4] * 8] * 8}), "names subject 4, but there are 3 subjects"),
        (json.dumps({"cot": "<think>", "grid": None}), "contains the mark"),
    ],
)
def test_mistakes_in_a_plan_file_are_named(text, says):
    with pytest.raises(UserError) as error:
        Plan.from_json(text, subjects=3, source="my/plan.json")
    assert str(error.value).startswith("my/plan.json: ") and says in str(error.value)


def test_image_shows_each_cell_in_its_colour_and_the_words_beside():
    image = Plan("an owl stands on a box", GRID).image(256)
    assert image.shape == (256, 512, 3)
    for row in range(8):  # a point beside the figure, away from the lines
        shown = image[row * 32 + 6, 16 * 3 + 6].astype(int)
        assert np.abs(shown - LABEL_COLOURS[row]).max() <= 8
    assert (image[:, 256:] < 128).any() and (image[:, 256:] > 250).mean() > 0.5


def test_image_of_half_a_plan_is_one_panel():
    assert Plan("", GRID).image(64).shape == (64, 64, 3)
    assert Plan("an owl").image(64).shape == (64, 64, 3)
    assert Plan("").image(64).shape == (64, 64, 3)
    crowded = Plan("owl " * 500, GRID).image(128)
    assert crowded.shape == (128, 256, 3) and (crowded[-4:, 128:] == 255).all()  # cut, not run over the edge


def test_colours_can_be_told_apart():
    colours = LABEL_COLOURS.astype(float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1e3 * np.eye(13)
    assert apart.min() > 30


@QUICK
@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "think>" not in text))
def test_a_thought_is_read_back(cot):
    assert parse_think(wrap_think(cot)) == cot


def test_truncated_thoughts_are_still_read():
    for text, cot in (
        ("<think>an owl", "an owl"),
        ("an owl</think> and more", "an owl"),
        ("an owl", "an owl"),
        ("noise<think>an <think>owl<layout></think>", "an owl"),
        ("", ""),
    ):
        assert parse_think(text) == cot


def test_a_thought_may_not_contain_marks():
    for mark in ("<think>", "</think>", "<layout>", "</layout>", "<cell 4>"):
        with pytest.raises(UserError, match=mark):
            validate_cot(f"an {mark} owl")
    validate_cot("an owl > a mouse, <3")
