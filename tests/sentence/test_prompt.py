"""Prompts to sentences and back in both arrangements; every mistake in a user's call is named."""


import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence.prompts import OWL, QUICK, images_of, prompts

from macro.sentence.plan import Plan
from macro.sentence.prompt import arrange, build_sentence, image_first, images_by_number, in_sentence, marker, prompt_of
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError
from macro.utils.images import save


def test_images_stand_at_their_first_mention():
    a, b, c = images_of(3)
    spans = in_sentence("The owl of <image 3> sits on <image 1>, not <image 3>.", [a, b, c])
    assert spans == (
        Image(path="2.png", subject=2),  # never mentioned: in front, without a number
        Text("The owl of "),
        Image(path="3.png", subject=3, number=3),
        Text(" sits on "),
        Image(path="1.png", subject=1, number=1),
        Text(", not <image 3>."),
    )


@QUICK
@given(prompts(least=1), st.integers(0, 11))
def test_an_image_to_edit_comes_before_all_words_and_its_mentions_stay(given_prompt, place):
    prompt, count = given_prompt
    images = images_of(count)
    images[place % count] = Image(path="scene.png", role="source")
    inside = Sentence(in_sentence(prompt, images))
    assert prompt_of(inside) == prompt
    assert [image.path for image in images_by_number(inside)] == [image.path for image in images]
    before = [*inside][: next((i for i, span in enumerate(inside) if isinstance(span, Text)), len(inside))]
    assert "scene.png" in [span.path for span in before]
    named = marker(place % count + 1) in prompt
    assert [image.number is not None for image in inside.images if image.role == "source"] == [named]
    assert arrange(arrange(inside, "image_first"), "in_sentence") == inside


def test_image_first_lists_all_images_before_the_prompt():
    spans = image_first("An owl on <image 2>.", images_of(2))
    assert spans == (
        Text("<image 1>"),
        Image(path="1.png", subject=1, number=1),
        Text("<image 2>"),
        Image(path="2.png", subject=2, number=2),
        Text("An owl on <image 2>."),
    )


@QUICK
@given(prompts())
def test_prompt_and_images_are_read_back_from_both_arrangements(sample):
    prompt, count = sample
    images = images_of(count)
    for spans in (in_sentence(prompt, images), image_first(prompt, images)):
        sentence = Sentence((*spans, Target(size=(8, 8))))
        assert prompt_of(sentence) == prompt
        assert [image.path for image in images_by_number(sentence)] == [image.path for image in images]
        assert Text("") not in spans


@QUICK
@given(prompts())
def test_arrangements_turn_into_one_another(sample):
    prompt, count = sample
    tail = (Plan("an owl"), Target(size=(8, 8)), Text("And then."), Image(OWL, role="context"))
    inside = Sentence((*in_sentence(prompt, images_of(count)), *tail), "customization", 5)
    first = Sentence((*image_first(prompt, images_of(count)), *tail), "customization", 5)
    assert arrange(inside, "image_first") == first
    assert arrange(first, "in_sentence") == inside
    assert arrange(inside, "in_sentence") == inside
    assert arrange(first, "image_first") == first


def test_images_keep_what_they_are():
    spans = (
        Image(OWL, role="source"),
        Text("Put "),
        Image(OWL, subject=4, number=2, phrase="owl"),
        Text(" in."),
    )
    first = arrange(Sentence(spans), "image_first")
    assert [(image.role, image.subject, image.phrase) for image in first.images] == [
        ("source", None, None),
        ("reference", 4, "owl"),
    ]
    assert arrange(first, "in_sentence") == Sentence(spans)


def test_learnt_text_is_no_part_of_the_prompt():
    story = Sentence((Text("Draw "), Image(OWL, number=1), Text("Once upon a time", learn=True), Target(OWL)))
    assert prompt_of(story) == "Draw <image 1>"
    assert arrange(story, "image_first").spans[3:] == (Text("Once upon a time", learn=True), Target(OWL))


@pytest.mark.parametrize("numbers", [(1, 1), (1, 3), (2, 2)])
def test_wrong_numbers_are_refused(numbers):
    sentence = Sentence((Text("x"), *(Image(OWL, number=n) for n in numbers)))
    with pytest.raises(UserError, match="taken twice or above their count 2"):
        arrange(sentence, "image_first")


@pytest.mark.parametrize(
    ("prompt", "count", "says"),
    [
        ("An owl of <image 7>.", 5, "names <image 7>, but there are only 5 images"),
        ("An owl of <image 2>.", 1, "names <image 2>, but there is only 1 image;"),
        ("An owl of <image 1>.", 0, "names <image 1>, but no image is given"),
        ("An owl of <image 0>.", 3, "<image 0> is no image's name"),
        ("An owl of <image 01>.", 3, "<image 01> is no image's name"),
        ("An owl.", 13, "13 images, but at most 12"),
        ("", 1, "is empty"),
        (" \n", 1, "is empty"),
    ],
)
def test_prompts_that_do_not_fit_their_images_are_refused(prompt, count, says):
    for arrangement in (in_sentence, image_first):
        with pytest.raises(UserError) as error:
            arrangement(prompt, [Image(OWL)] * count)
        assert says in str(error.value)


# ---- a user's call ----


def test_a_users_files_and_arrays_become_numbered_subjects(tmp_path):
    save(tmp_path / "box.png", OWL + 1)
    file = str(tmp_path / "box.png")
    sentence = build_sentence("An owl <image 1> on <image 2>.", [OWL, tmp_path / "box.png"], (32, 48))
    assert sentence.spans == (
        Text("An owl "),
        Image(OWL, subject=1, number=1),
        Text(" on "),
        Image(OWL + 1, file, subject=2, number=2),
        Text("."),
        Target(size=(32, 48)),
    )


def test_images_that_the_instruction_does_not_name_come_first():
    sentence = build_sentence("An owl.", [OWL, OWL + 1], (8, 8))
    assert sentence.spans[:3] == (Image(OWL, subject=1), Image(OWL + 1, subject=2), Text("An owl."))
    assert build_sentence("An owl.", [], (8, 8)).spans == (Text("An owl."), Target(size=(8, 8)))


@pytest.mark.parametrize(
    ("instruction", "images", "says"),
    [
        ("Take <image 1>.", [], "instruction: names <image 1>, but no image is given"),
        ("Take <image 7>.", [OWL] * 5, "instruction: names <image 7>, but there are only 5"),
        ("Take it.", ["absent.png"] * 13, "instruction: 13 images, but at most 12"),
        ("", [OWL], "instruction: is empty"),
        ("Take <image1>.", [OWL], "'<image1>' names no image; write <image 1>"),
        ("Take [Image 1].", [OWL], "'[Image 1]' names no image; write <image 1>"),
        ("Take it.", ["absent.png"], "absent.png: there is no such file"),
        ("Take it.", [OWL, OWL[..., 0]], "image 2: uint8[4, 6]; it must be uint8[height, width, 3]"),
        ("Take it.", [OWL / 255], "image 1: float64[4, 6, 3]"),
    ],
)
def test_a_users_mistakes_are_named(instruction, images, says):
    with pytest.raises(UserError) as error:
        build_sentence(instruction, images, (8, 8))
    assert says in str(error.value)


def test_an_edit_is_of_image_1_and_the_references_go_on_from_2():
    made = build_sentence("put <image 2> on the <image 1> car", [OWL], (64, 64), source=OWL)
    assert made.task == "edit" and made.subjects == 12
    source, words, reference = made.spans[:3]
    assert (source.role, source.subject, source.number) == ("source", None, 1)
    assert words == Text("put ")
    assert (reference.role, reference.subject, reference.number) == ("reference", 1, 2)
    assert prompt_of(made) == "put <image 2> on the <image 1> car"
    with pytest.raises(UserError, match="13 images, but at most 12"):
        build_sentence("x", [OWL] * 12, None, source=OWL)
    with pytest.raises(UserError, match="image 2: float32"):
        build_sentence("x", [OWL.astype(np.float32)], None, source=OWL)
