import numpy as np
import pytest
from sampling.toy import picture, pipeline

from macro.diffusion.step_cache import TaylorSeer, TeaCache
from macro.sentence.plan import Plan
from macro.utils.errors import UserError

PIPELINE = pipeline()
CALL = {"instruction": "A <image 1> by <image 2>.", "images": [picture(1), picture(2)]}
GRID = np.zeros((8, 8), np.int8)


@pytest.fixture(scope="module")
def three():
    return PIPELINE.compose(**CALL, candidates=3)


@pytest.fixture(scope="module")
def one():
    return PIPELINE.compose(**CALL)


def test_a_plan_and_a_picture_come_out(one):
    assert one.pixels.shape == (64, 64, 3) and one.pixels.dtype == np.uint8 and one.pixels.std() > 1
    assert one.plan.grid.shape == (8, 8) and set(one.plan.named) <= {1, 2}
    assert list(one.seconds) == ["prompt", "plan", "read", "draw", "decode"]


def test_same_seed_same_picture(one):
    again, other = PIPELINE.compose(**CALL), PIPELINE.compose(**CALL, seed=1)
    np.testing.assert_array_equal(one.pixels, again.pixels)
    assert one.plan == again.plan != other.plan
    assert (one.pixels != other.pixels).any()


def test_a_candidate_is_what_it_would_be_alone(one, three):
    alone = one.candidates[0]
    assert three.candidates[0].plan == alone.plan
    assert three.candidates[0].score == pytest.approx(alone.score, rel=1e-4)
    assert np.abs(three.candidates[0].pixels.astype(int) - alone.pixels).max() <= 1


def test_the_likeliest_plan_is_picked(three):
    scores = [candidate.score for candidate in three.candidates]
    assert len(set(scores)) == 3 and three.best == int(np.argmax(scores))
    assert three.plan is three.candidates[three.best].plan


def test_its_own_plan_handed_back_gives_the_same_picture(one):
    again = PIPELINE.compose(**CALL, plan=Plan.from_json(one.plan.to_json()))
    assert again.given and "plan" not in again.seconds
    np.testing.assert_array_equal(again.pixels, one.pixels)
    assert again.candidates[0].score == one.candidates[0].score


def test_an_edited_plan_changes_the_picture(one):
    edited = Plan(one.plan.cot, (one.plan.grid + 1) % 3)
    assert (PIPELINE.compose(**CALL, plan=edited).pixels != one.pixels).any()


def test_without_pictures_the_plan_is_words():
    result = PIPELINE.compose("A field.", steps=1)
    assert result.plan.grid is None and result.pixels.shape == (64, 64, 3)


def test_unplanned_draws_from_the_sentence_alone(one):
    two = PIPELINE.compose(**CALL, candidates=2, planned=False)
    assert "plan" not in two.seconds and two.plan == Plan("") and two.candidates[0].score == 0
    assert np.abs(two.pixels.astype(int) - PIPELINE.compose(**CALL, planned=False).pixels).max() <= 1
    assert (two.candidates[0].pixels != two.candidates[1].pixels).any() and (two.pixels != one.pixels).any()
    # The picture that a sentence without plan conditions on is all there is: its words tell.
    other = PIPELINE.compose(**CALL | {"instruction": "A <image 1> on <image 2>."}, planned=False)
    assert (other.pixels != two.pixels).any()


@pytest.mark.parametrize("reuse", [TaylorSeer(3, 1), TeaCache(0.5)])
def test_reuse_draws_nearly_the_same_from_fewer_full_steps(one, reuse):
    whole = PIPELINE.compose(**CALL, plan=one.plan, steps=10)
    some, again = (PIPELINE.compose(**CALL, plan=one.plan, steps=10, reuse=reuse) for _ in range(2))
    assert whole.full_steps == 10 and 2 <= some.full_steps < 8
    np.testing.assert_array_equal(some.pixels, again.pixels)
    assert 0 < np.abs(some.pixels.astype(int) - whole.pixels).mean() < 0.5 * np.std(whole.pixels)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"candidates": 0}, "candidates"),
        ({"plan": Plan("x", GRID + 3)}, "subject 3"),
        ({"instruction": " "}, "empty"),
        ({"instruction": "A <image 7>."}, "<image 7>"),
        ({"images": [picture(0, 16, 16)] * 13}, "12"),
        ({"size": (60, 64)}, "60x64"),
        ({"steps": 0}, "steps"),
        ({"steps": 2, "reuse": TaylorSeer(2, 2)}, "steps: 2.*reuse"),
    ],
)
def test_mistakes_are_named(change, said):
    with pytest.raises(UserError, match=said):
        PIPELINE.compose(**CALL | change)


def test_a_source_is_edited():
    call = {"instruction": "put <image 2> on the <image 1> car", "images": [picture(1)]}
    made = PIPELINE.compose(**call, source=picture(3, 64, 64))
    assert made.sentence.task == "edit" and made.pixels.shape == (64, 64, 3)
    assert set(made.plan.named) <= set(range(1, 13))
    # All twelve may be in it: nobody has numbered the source's own subjects.
    busy = Plan("x", np.tile(np.arange(1, 9, dtype=np.int8), (8, 1)))
    of_one, of_another = (PIPELINE.compose(**call, source=picture(n, 64, 64), plan=busy) for n in (3, 4))
    assert (of_one.pixels != of_another.pixels).any()
    with pytest.raises(UserError, match="names subject 2"):
        PIPELINE.compose("<image 1>", [picture(1)], plan=busy)
