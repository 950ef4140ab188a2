"""Sentences: what they hold, what they refuse, and that they are values."""

import numpy as np
import pytest

from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text, Truth
from macro.utils.errors import UserError

OWL = np.full((4, 6, 3), 7, np.uint8)
PLAN = Plan("an owl", np.ones((8, 8), np.int8))


def sentence() -> Sentence:
    return Sentence(
        (Text("An "), Image(OWL, subject=1, number=1), Text("owl."), Image(path="a.png"), PLAN, Target(OWL)),
        task="customization",
        idx=3,
    )


def test_a_sentence_gives_out_its_parts():
    s = sentence()
    assert len(s) == 6 and list(s) == list(s.spans)
    assert s.images == (s.spans[1], s.spans[3])
    assert s.plan is PLAN and s.target is s.spans[5] and s.text == "An owl."
    assert Sentence((Text("x"),)).plan is None and Sentence((Text("x"),)).target is None


def test_several_views_of_one_subject_count_once():
    views = [Image(OWL, subject=n) for n in (1, 1, 2, 1)]
    assert Sentence((*views, Image(OWL))).subjects == 2
    assert Sentence((Text("x"),)).subjects == 0


def test_sentences_are_compared_by_content():
    assert sentence() == sentence()
    other = OWL.copy()
    other[0, 0, 0] = 8
    assert sentence() != sentence().replace(idx=4)
    assert Image(OWL) != Image(other) and Image(OWL) != Image(path="a.png") and Image(OWL) == Image(OWL.copy())
    assert Image(OWL) != Target(OWL)


def test_replace_keeps_the_rest():
    s = sentence().replace(task="other")
    assert s.task == "other" and s.idx == 3 and s.spans == sentence().spans


def test_a_plan_is_exchanged_in_front_of_the_target():
    s, plan = sentence(), Plan("another")
    assert s.with_plan(plan).spans == (*s.spans[:4], plan, s.spans[5])
    assert s.with_plan(None).spans == (*s.spans[:4], s.spans[5])
    assert s.with_plan(None).with_plan(PLAN) == s
    assert Sentence((Text("x"),)).with_plan(plan).spans == (Text("x"), plan)


def test_target_knows_its_size():
    assert Target(OWL).size == (4, 6) and Target(size=(8, 8)).pixels is None
    assert Target(path="a.png").size is None
    assert Target(OWL, size=(8, 8)).size == (4, 6)


def test_repr_is_short():
    assert repr(Image(OWL, subject=1)).startswith("Image(pixels=uint8[4, 6, 3], path=None, subject=1")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Image(), "neither pixels nor a path"),
        (lambda: Image(OWL, subject=0), "subject 0"),
        (lambda: Image(OWL, subject=13), "subject 13"),
        (lambda: Image(OWL, number=0), "number 0"),
        (lambda: Image(OWL, role="hero"), "'hero'"),
        (lambda: Target(), "target: give its pixels"),
        (lambda: Sentence((PLAN, Text("x"), PLAN)), "more than one plan"),
        (lambda: Sentence((Image(OWL),) * 13), "13 reference images, but at most 12"),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(UserError) as error:
        make()
    assert says in str(error.value)


def test_only_references_are_counted_against_the_limit():
    s = Sentence((*(Image(OWL),) * 12, Image(OWL, role="source"), Image(OWL, role="context")))
    assert len(s.images) == 14


def test_truth_holds_one_entry_a_subject():
    masks = np.zeros((2, 4, 4), bool)
    truth = Truth(
        kinds=("owl", "box"),
        palettes=np.zeros((2, 3, 3)),
        textures=("dot", "plain"),
        colours=(("red",), ()),
        boxes=np.zeros((2, 4)),
        masks=masks,
        amodal=masks,
        visibility=np.ones(2),
        depth_order=(1, 2),
        relations=((1, "on", 2),),
        questions=(("Is the owl on the box?", True),),
    )
    assert sentence().replace(truth=truth) == sentence().replace(truth=truth)
    assert sentence().replace(truth=truth) != sentence()
