import numpy as np
import pytest
from sampling.toy import TOKENIZER, pipeline, random_image

from macro.diffusion.step_cache import TaylorSeer, TeaCache
from macro.sentence.plan import Plan
from macro.sentence.prompt import image_first
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError

PIPELINE = pipeline()
CALL = {"instruction": "A <image 1> by <image 2>.", "images": [random_image(1), random_image(2)]}
GRID = np.zeros((8, 8), np.int8)


@pytest.fixture(scope="module")
def three():
    return PIPELINE.compose(**CALL, candidates=3)


@pytest.fixture(scope="module")
def one():
    return PIPELINE.compose(**CALL)


def test_a_plan_and_an_image_come_out(one):
    assert one.pixels.shape == (64, 64, 3) and one.pixels.dtype == np.uint8 and one.pixels.std() > 1
    assert one.plan.grid.shape == (8, 8) and set(one.plan.named) <= {1, 2}
    assert list(one.seconds) == ["prompt", "plan", "read", "draw", "decode"]
    assert one.sentence.target.size == (64, 64) and list(one.ends) == ["full", "no_text", "null"]


def test_same_seed_same_image(one):
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
    assert len(set(scores)) == 3 and three.scored and three.best == int(np.argmax(scores))
    assert three.plan is three.candidates[three.best].plan


def test_its_own_plan_handed_back_gives_the_same_image(one):
    again = PIPELINE.compose(**CALL, plan=Plan.from_json(one.plan.to_json()))
    assert again.given and "plan" not in again.seconds
    np.testing.assert_array_equal(again.pixels, one.pixels)
    assert again.candidates[0].score == one.candidates[0].score


def test_an_edited_plan_changes_the_image(one):
    edited = Plan(one.plan.cot, (one.plan.grid + 1) % 3)
    assert (PIPELINE.compose(**CALL, plan=edited).pixels != one.pixels).any()


def test_without_images_the_plan_is_words():
    result = PIPELINE.compose("A field.", num_timesteps=1)
    assert result.plan.grid is None and result.pixels.shape == (64, 64, 3)


def test_unplanned_draws_from_the_sentence_alone(one):
    two = PIPELINE.compose(**CALL, candidates=2, use_planner=False)
    assert "plan" not in two.seconds and two.plan == Plan("") and two.candidates[0].score is None
    assert two.best == 0 and not two.scored
    assert np.abs(two.pixels.astype(int) - PIPELINE.compose(**CALL, use_planner=False).pixels).max() <= 1
    assert (two.candidates[0].pixels != two.candidates[1].pixels).any() and (two.pixels != one.pixels).any()
    # The image that a sentence without plan conditions on is all there is: its words tell.
    other = PIPELINE.compose(**CALL | {"instruction": "A <image 1> on <image 2>."}, use_planner=False)
    assert (other.pixels != two.pixels).any()


@pytest.mark.parametrize("step_cache", [TaylorSeer(3, 1), TeaCache(0.5)])
def test_a_step_cache_draws_nearly_the_same_from_fewer_full_steps(one, step_cache):
    whole = PIPELINE.compose(**CALL, plan=one.plan, num_timesteps=10)
    some, again = (PIPELINE.compose(**CALL, plan=one.plan, num_timesteps=10, step_cache=step_cache) for _ in range(2))
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
        ({"images": [random_image(0, 16, 16)] * 13}, "12"),
        ({"size": (60, 64)}, "60x64"),
        ({"num_timesteps": 0}, "num_timesteps"),
        ({"num_timesteps": 2, "step_cache": TaylorSeer(2, 2)}, "num_timesteps=2.*step_cache"),
    ],
)
def test_mistakes_are_named(change, said):
    with pytest.raises(UserError, match=said):
        PIPELINE.compose(**CALL | change)


def test_a_source_is_edited():
    call = {"instruction": "put <image 2> on the <image 1> car", "images": [random_image(1)]}
    made = PIPELINE.compose(**call, source=random_image(3, 64, 64))
    assert made.sentence.task == "edit" and made.pixels.shape == (64, 64, 3)
    assert set(made.plan.named) <= set(range(1, 13))
    # All twelve may be in it: nobody has numbered the source's own subjects.
    busy = Plan("x", np.tile(np.arange(1, 9, dtype=np.int8), (8, 1)))
    of_one, of_another = (PIPELINE.compose(**call, source=random_image(n, 64, 64), plan=busy) for n in (3, 4))
    assert (of_one.pixels != of_another.pixels).any()
    with pytest.raises(UserError, match="names subject 2"):
        PIPELINE.compose("<image 1>", [random_image(1)], plan=busy)


def test_image_first_is_drawn_as_it_is_trained():
    made = PIPELINE.compose(**CALL, arrangement="image_first", num_timesteps=1)
    marks = [span.text for span in made.sentence if isinstance(span, Text)]
    assert marks == ["<image 1>", "<image 2>", CALL["instruction"]]
    # An edit's spans are those of the training sample of the same arrangement.
    source, target = random_image(3, 64, 64), Target(size=(64, 64))
    edit = PIPELINE.compose("dim it", source=source, arrangement="image_first", num_timesteps=1)
    trained = image_first("dim it", [Image(source, role="source")])
    assert edit.sentence.spans == (*trained, target)
    with pytest.raises(UserError, match="arrangement='sentence_first'"):
        PIPELINE.compose(**CALL, arrangement="sentence_first")


def test_an_earlier_target_is_read_and_the_last_one_drawn():
    first, last = Target(random_image(5, 64, 64)), Target(size=(64, 64))
    page = Sentence((Text("page one "), first, Text("page two "), last))
    made, other = (
        PIPELINE.compose_sentence(story, plan=Plan("abc"), num_timesteps=1)
        for story in (page, page.replace(spans=(Text("page one "), Target(random_image(6, 64, 64)), *page.spans[2:])))
    )
    assert (made.pixels != other.pixels).any()
    # Text, clean VAE copy and ViT copy, text, plan.
    copies = 16 + 2 + (32 // 16) ** 2 + 2
    words = len("page one ") + len("page two ") + 4
    assert made.ends["full"][0] == copies + words + len(TOKENIZER.encode("<think>abc</think>")) + 2
    with pytest.raises(UserError, match="2 targets; only the last is drawn"):
        PIPELINE.compose_sentence(page.replace(spans=(Text("x"), last, Text("y"), last)))


def test_an_empty_batch_has_no_results():
    assert PIPELINE.compose_batch([]) == []
