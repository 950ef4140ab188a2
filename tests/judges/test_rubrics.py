"""What judges are asked, how their answers are read, and MacroBench's way of adding up."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judges.server import serving, written

from macro.judges.chat import parse_answer
from macro.judges.endpoint import Endpoint
from macro.judges.rubrics import RUBRICS, bench_score, harmonic_mean, question, sample_score
from macro.utils.errors import ItemError, UserError

ASPECTS = {
    "customization": ("consistency", "following"),
    "illustration": ("text", "image"),
    "spatial": ("viewpoint", "content"),
    "temporal": ("context", "sequence"),
}
PIXELS = [np.full((4, 4, 3), n, np.uint8) for n in range(5)]
SCORE = st.just(0.0) | st.floats(0.01, 10)


def asked(name, references=2, **fields):
    truth = {"truth": PIXELS[4]} if RUBRICS[name].sees_truth else {}
    return question(name, "put <image 1> on <image 2>", PIXELS[:references], PIXELS[3], **truth, **fields)


def test_the_four_tasks_and_their_aspects():
    assert {name: tuple(a.name for a in rubric.aspects) for name, rubric in RUBRICS.items()} == ASPECTS
    assert [name for name, rubric in RUBRICS.items() if rubric.sees_truth] == ["spatial"]


def test_names_of_scores():
    assert RUBRICS["customization"].scores(3) == ("consistency_1", "consistency_2", "consistency_3", "following")
    assert RUBRICS["temporal"].scores(3) == ("context", "sequence")


@pytest.mark.parametrize("name", RUBRICS)
def test_a_question_shows_everything_in_order_and_says_what_scores_mean(name):
    ask = asked(name, seed=3)
    told = json.loads(ask.parts[0])
    assert told == {
        "stage": "judge", "rubric": name, "prompt": "put <image 1> on <image 2>", "references": 2, "seed": 3,
    }  # fmt: skip
    images = [part for part in ask.parts if not isinstance(part, str)]
    shown = [*PIXELS[:2], *([PIXELS[4]] if name == "spatial" else []), PIXELS[3]]
    assert all(a is b for a, b in zip(images, shown, strict=True))
    assert all(aspect.asks in ask.system and aspect.scale in ask.system for aspect in RUBRICS[name].aspects)


@pytest.mark.parametrize("name", RUBRICS)
def test_answers_are_read(name):
    ask = asked(name)
    scores = dict.fromkeys(RUBRICS[name].scores(2), 7)
    _, value = parse_answer(ask, json.dumps({"observations": "fine", **scores}))
    assert value == {score: 7.0 for score in scores} and all(type(v) is float for v in value.values())
    for left_out in scores:
        with pytest.raises(ItemError, match=left_out):
            parse_answer(ask, json.dumps({"observations": "fine", **scores} | {left_out: 10.5}))
        rest = {k: v for k, v in scores.items() if k != left_out}
        with pytest.raises(ItemError, match=f"no field '{left_out}'"):
            parse_answer(ask, json.dumps({"observations": "fine", **rest}))


def test_a_judge_over_the_wire():
    good = {"observations": "the dog is another", "consistency_1": 2, "consistency_2": 8.5, "following": 9}
    with serving(lambda request, n: written(good if n == 0 else good | {"following": "high"})) as server:
        judge = Endpoint("m", base_url=server.url, max_repairs=0)
        assert judge.ask([asked("customization")]) == [{"consistency_1": 2.0, "consistency_2": 8.5, "following": 9.0}]
        assert isinstance(judge.ask([asked("customization", seed=1)])[0], ItemError)


def test_the_truth_is_shown_to_those_judges_only_that_may_see_it():
    with pytest.raises(UserError, match="sees no true target"):
        question("temporal", "p", PIXELS[:2], PIXELS[3], truth=PIXELS[4])
    with pytest.raises(UserError, match="give it the true target"):
        question("spatial", "p", PIXELS[:2], PIXELS[3])
    with pytest.raises(UserError, match="choose from customization"):
        question("beauty", "p", PIXELS[:2], PIXELS[3])


# ---- adding up ----


def test_scores_by_hand():
    assert sample_score("temporal", {"context": 4.0, "sequence": 9.0}) == 6.0
    assert sample_score("customization", {"consistency_1": 5.0, "following": 5.0}) == pytest.approx(5.0)
    # The harmonic mean of 4, 6, 12 is 3 / (1/4 + 1/6 + 1/12) = 6.
    three = {"consistency_1": 4.0, "consistency_2": 6.0, "consistency_3": 12.0 / 1.5, "following": 10.0}
    assert sample_score("customization", three) == pytest.approx(math.sqrt(10 * 3 / (1 / 4 + 1 / 6 + 1 / 8)))
    assert bench_score({"a": [2.0, 4.0], "b": [9.0]}) == 6.0


@given(st.lists(SCORE, min_size=1, max_size=10), SCORE)
def test_a_zero_counts_as_zero_and_one_bad_reference_weighs_heavily(consistency, following):
    scores = {f"consistency_{n}": value for n, value in enumerate(consistency, 1)} | {"following": following}
    score = sample_score("customization", scores)
    if min(*consistency, following) == 0:
        assert score == 0
    else:
        assert score <= math.sqrt(np.mean(consistency) * following) + 1e-6
        assert score <= math.sqrt(len(consistency) * min(consistency) * following) + 1e-6
        assert score >= math.sqrt(min(consistency) * following) * (1 - 1e-9)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=10))
def test_the_harmonic_mean_does_not_depend_on_order(values):
    assert harmonic_mean(values) == pytest.approx(harmonic_mean(values[::-1]))
    assert harmonic_mean([values[0]] * 4) == pytest.approx(values[0])


@pytest.mark.parametrize(
    "scores",
    [
        {"context": 4.0},
        {"context": 4.0, "sequence": 9.0, "text": 1.0},
        {"context": 4.0, "sequence": 10.1},
        {"context": 4.0, "sequence": float("nan")},
    ],
)
def test_scores_that_are_not_the_rubrics(scores):
    with pytest.raises(UserError, match="rubric temporal"):
        sample_score("temporal", scores)


@pytest.mark.parametrize("scores", [{"following": 4.0}, {"consistency_1": 4.0, "consistency_3": 4.0, "following": 4.0}])
def test_references_without_a_score(scores):
    with pytest.raises(UserError, match="rubric customization"):
        sample_score("customization", scores)
