"""Files and prompts to sentences and back: every round trip is the identity, every mistake is named."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.sentence.formats import (
    arrange,
    compose_sentence,
    image_first,
    in_sentence,
    marker,
    numbered_images,
    phrased,
    prompt_of,
    read,
    read_inset,
    read_macrodata,
    with_pixels,
    write_inset,
    write_macrodata,
)
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError
from macro.utils.images import load, save

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
OWL = np.full((4, 6, 3), 7, np.uint8)
REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "macrodata"

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), max_size=8)
decoys = st.sampled_from(["<Image 1>", "<image1>", "<image n>", "image 2", "<", "<image -1>", "[Image1]"])
names = st.text("abcé 9-", min_size=1).map(lambda name: f"images/{name}.jpg")


@st.composite
def prompts(draw, least: int = 0):
    """A prompt and the count of its images; markers repeat, touch, leave some out, stand anywhere."""
    images = draw(st.integers(least, 12))
    pieces = words | decoys
    if images:
        pieces |= st.integers(1, images).map(marker)
    prompt = "".join(draw(st.lists(pieces, min_size=1, max_size=10)))
    return (prompt if prompt.strip() else "an owl"), images


def images_of(count: int) -> list[Image]:
    return [Image(path=f"{n}.png", subject=n) for n in range(1, count + 1)]


# ---- arrangements ----


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
    assert [image.path for image in numbered_images(inside)] == [image.path for image in images]
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
        assert [image.path for image in numbered_images(sentence)] == [image.path for image in images]
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
    sentence = compose_sentence("An owl <image 1> on <image 2>.", [OWL, tmp_path / "box.png"], (32, 48))
    assert sentence.spans == (
        Text("An owl "),
        Image(OWL, subject=1, number=1),
        Text(" on "),
        Image(OWL + 1, file, subject=2, number=2),
        Text("."),
        Target(size=(32, 48)),
    )


def test_images_that_the_instruction_does_not_name_come_first():
    sentence = compose_sentence("An owl.", [OWL, OWL + 1], (8, 8))
    assert sentence.spans[:3] == (Image(OWL, subject=1), Image(OWL + 1, subject=2), Text("An owl."))
    assert compose_sentence("An owl.", [], (8, 8)).spans == (Text("An owl."), Target(size=(8, 8)))


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
        compose_sentence(instruction, images, (8, 8))
    assert says in str(error.value)


# ---- MacroData ----


@st.composite
def macrodata(draw):
    prompt, images = draw(prompts(least=1))
    record = {
        "task": draw(st.sampled_from(["customization", "illustration", "spatial", "temporal", "compose"])),
        "idx": draw(st.integers(0, 10**9)),
        "prompt": prompt,
        "input_images": draw(st.lists(names, min_size=images, max_size=images)),
    }
    if draw(st.booleans()):
        record["output_image"] = draw(names | st.just("../elsewhere/target.png") | st.just("/far/target.png"))
    return record


@QUICK
@given(macrodata())
def test_macrodata_json_is_written_back_identically(record):
    with tempfile.TemporaryDirectory() as folder:
        given, back = Path(folder, "given.json"), Path(folder, "back.json")
        given.write_text(json.dumps(record))
        for arrangement in ("in_sentence", "image_first"):
            sentence = read_macrodata(given)
            write_macrodata(back, arrange(sentence, arrangement))
            assert json.loads(back.read_text("utf-8")) == record
            assert read_macrodata(back) == sentence
        assert sorted(os.listdir(folder)) == ["back.json", "given.json"]


def test_images_without_a_file_are_saved_beside_the_json(tmp_path):
    spans = (
        *in_sentence("An owl <image 2>.", [Image(OWL, subject=1), Image(OWL + 1, subject=2)]),
        Target(OWL + 2),
    )
    write_macrodata(tmp_path / "new" / "7.json", Sentence(spans))
    record = json.loads((tmp_path / "new" / "7.json").read_text())
    assert record["input_images"] == ["7_input1.png", "7_input2.png"]
    assert record["output_image"] == "7_output.png"
    back = with_pixels(read_macrodata(tmp_path / "new" / "7.json"))
    assert [image.pixels[0, 0, 0] for image in back.images] == [7, 8] and back.target.pixels[0, 0, 0] == 9
    assert back.target.size == (4, 6)


def test_a_json_in_another_folder_still_finds_its_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("images/owl.png", OWL)
    write_macrodata("lists/1.json", Sentence((Image(path="images/owl.png"), Text("An owl."))))
    assert json.loads(Path("lists/1.json").read_text())["input_images"] == ["../images/owl.png"]
    assert with_pixels(read_macrodata("lists/1.json")).images[0].pixels.shape == (4, 6, 3)


def test_only_images_of_things_are_bound_to_subjects(tmp_path):
    record = {"prompt": "Go on.", "input_images": ["a.png", "b.png"]}
    for task, subjects in (("customization", [1, 2]), ("temporal", [None, None])):
        (tmp_path / "x.json").write_text(json.dumps({**record, "task": task}))
        assert {image.role for image in read_macrodata(tmp_path / "x.json").images} == {"reference"}
        assert [image.subject for image in read_macrodata(tmp_path / "x.json").images] == subjects


def test_the_first_image_of_an_edit_is_its_source(tmp_path):
    record = {"prompt": "Put <image 2> in.", "input_images": ["a.png", "b.png"], "task": "edit"}
    (tmp_path / "x.json").write_text(json.dumps(record))
    images = numbered_images(read_macrodata(tmp_path / "x.json"))
    assert [image.role for image in images] == ["source", "reference"]


def test_text_to_image_has_no_images(tmp_path):
    (tmp_path / "x.json").write_text('{"prompt": "An owl.", "input_images": [], "output_image": "owl.png"}')
    for arrangement in ("in_sentence", "image_first"):
        sentence = arrange(read(tmp_path / "x.json"), arrangement)
        assert [type(span) for span in sentence] == [Text, Target]
    with pytest.raises(UserError, match="names <image 1>, but no image is given"):
        (tmp_path / "x.json").write_text('{"prompt": "<image 1> flies.", "input_images": []}')
        read(tmp_path / "x.json")


def test_either_format_is_known_by_its_fields(tmp_path):
    (tmp_path / "inset.json").write_text('{"caption": "An owl.", "map": {"owl": 1}, "images": ["owl.png"]}')
    (tmp_path / "macro.json").write_text('{"prompt": "An <image 1> owl.", "input_images": ["owl.png"]}')
    inset, macro = (read(tmp_path / f"{name}.json") for name in ("inset", "macro"))
    assert prompt_of(inset) == prompt_of(macro) == "An <image 1> owl."
    assert (inset.images[0].phrase, macro.images[0].phrase) == ("owl", None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": None}, "prompt must be a text, not None"),
        ({"prompt": ""}, "prompt: is empty"),
        ({"prompt": "<image 7>"}, "prompt: names <image 7>, but there are only 5 images"),
        ({"input_images": [1]}, "input_images must be a list of file names"),
        ({"input_images": "a.png"}, "input_images must be a list, not 'a.png'"),
        ({"input_images": ["a.png"] * 13}, "13 images, but at most 12"),
        ({"idx": "3"}, "idx must be a whole number"),
        ({"task": 3}, "task must be a text"),
        ({"output_image": 3}, "output_image must be a text"),
    ],
)
def test_mistakes_in_a_macrodata_file_are_named(tmp_path, change, says):
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"prompt": "An owl.", "input_images": ["a.png"] * 5, **change}))
    with pytest.raises(UserError) as error:
        read_macrodata(file)
    assert str(error.value).startswith(f"{file}: ") and says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "not JSON"), ("[]", "one JSON object"), ("{}", "no field 'prompt'"), (None, "cannot be read")],
)
def test_files_that_are_no_record_are_named(tmp_path, text, says):
    file = tmp_path / "x.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=says):
        read_macrodata(file)


def test_an_unwritable_place_is_named_and_left_clean(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        write_macrodata(tmp_path / "file" / "x.json", Sentence((Image(path="/a.png"), Text("x"))))
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real MacroData samples are not on this machine")
@pytest.mark.parametrize("name", ["1-3_sample1", "4-5_sample1"])
def test_real_macrodata_loads_and_is_written_back(tmp_path, name):
    record = json.loads((REAL / f"{name}.json").read_text())
    sentence = with_pixels(read_macrodata(REAL / f"{name}.json"))
    assert prompt_of(sentence) == record["prompt"]
    assert prompt_of(arrange(sentence, "image_first")) == record["prompt"]
    assert all(image.pixels.std() > 10 for image in sentence.images) and sentence.target.size[0] > 300
    np.testing.assert_array_equal(numbered_images(sentence)[0].pixels, load(REAL / record["input_images"][0]))
    write_macrodata(tmp_path / "x.json", sentence)
    assert with_pixels(read_macrodata(tmp_path / "x.json")).target == sentence.target


# ---- INSET ----


def test_phrases_become_images_in_the_sentence(tmp_path):
    record = {
        "caption": "A dog house behind a dog.",
        "map": {"dog": 1, "dog house": 3},
        "images": ["dog.png", "style.png", "house.png"],
    }
    (tmp_path / "x.json").write_text(json.dumps(record))
    sentence = read_inset(tmp_path / "x.json")
    assert prompt_of(sentence) == "A <image 3> dog house behind a <image 1> dog."
    silent, words, house, _, dog, end = sentence.spans
    assert (silent.phrase, house.phrase, dog.phrase) == (None, "dog house", "dog")
    assert words == Text("A ") and end == Text(" dog.")


def test_an_engine_places_images_as_a_file_does():
    owl, box, style = images_of(3)
    spans = phrased("A red owl on an owl box.", {"owl box": 2, "owl": 1}, [owl, box, style])
    assert spans == (
        Image(path="3.png", subject=3),
        Text("A red "),
        Image(path="1.png", subject=1, number=1, phrase="owl"),
        Text(" owl on an "),
        Image(path="2.png", subject=2, number=2, phrase="owl box"),
        Text(" owl box."),
    )


@pytest.mark.parametrize(
    ("caption", "phrases", "says"),
    [
        ("An owl.", {"cat": 1}, "answer: map names 'cat', which has no place"),
        ("Owls.", {"Owl": 1}, "which has no place of its own"),
        ("An owl.", {"owl": 3}, "sends 'owl' to image 3, but there are 2"),
        ("An owl.", {"owl": True}, "sends 'owl' to image True"),
        ("An owl.", {"owl": [1]}, "sends 'owl' to image [1]"),
        ("An owl on a box.", {"owl": 1, "box": 1}, "two phrases to one image"),
        ("An <image 1> owl.", {"owl": 1}, "holds an <image n> marker"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(caption, phrases, says):
    with pytest.raises(UserError) as error:
        phrased(caption, phrases, images_of(2), "answer")
    assert str(error.value).startswith("answer: ") and says in str(error.value)


@st.composite
def inset(draw):
    """A caption of words, some of them phrases, among them ones that are parts of others."""
    vocabulary = ["owl", "red", "red owl", "box", "the box", "an", "owls", "(van)", "é"]
    caption = " ".join(draw(st.lists(st.sampled_from(vocabulary), min_size=1, max_size=12)))
    phrases = draw(st.lists(st.sampled_from(caption.split()), min_size=1, max_size=4, unique=True))
    images = len(phrases) + draw(st.integers(0, 3))
    numbers = draw(st.permutations(range(1, images + 1)))
    return {
        "task": "compose",
        "idx": draw(st.integers(0, 99)),
        "caption": caption,
        "map": dict(zip(phrases, numbers, strict=False)),
        "images": [f"{n}.png" for n in range(1, images + 1)],
        "output_image": "target.png",
    }


@QUICK
@given(inset())
def test_inset_json_is_written_back_identically(record):
    with tempfile.TemporaryDirectory() as folder:
        given, back = Path(folder, "given.json"), Path(folder, "back.json")
        given.write_text(json.dumps(record))
        sentence = read_inset(given)
        write_inset(back, sentence)
        assert json.loads(back.read_text("utf-8")) == record
        assert read_inset(back) == sentence
        write_inset(back, arrange(sentence, "image_first"))
        assert json.loads(back.read_text("utf-8")) == record


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"map": {"cat": 1}}, "names 'cat', which has no place of its own"),
        ({"map": {"ow": 1}}, "names 'ow', which has no place"),
        ({"map": {"": 1}}, "names '', which has no place"),
        ({"map": {"red owl": 1, "owl": 2}}, "names 'owl', which has no place of its own"),
        ({"map": {"owl": 3}}, "'owl' to image 3, but there are 2"),
        ({"map": {"owl": "1"}}, "'owl' to image '1'"),
        ({"map": {"owl": 1, "box": 1}}, "two phrases to one image"),
        ({"map": [1]}, "map must be an object"),
        ({"caption": "An <image 1> owl on a box."}, "holds an <image n> marker"),
        ({"caption": ""}, "caption"),
        ({"images": [1, 2]}, "images must be a list of file names"),
        ({"images": ["a.png"] * 13}, "13 images"),
    ],
)
def test_mistakes_in_an_inset_file_are_named(tmp_path, change, says):
    file = tmp_path / "x.json"
    record = {"caption": "A red owl on a box.", "map": {"owl": 1}, "images": ["a.png", "b.png"]}
    file.write_text(json.dumps({**record, **change}))
    with pytest.raises(UserError) as error:
        read_inset(file)
    assert str(error.value).startswith(f"{file}: ") and says in str(error.value)


def test_an_image_that_stands_before_no_phrase_is_named(tmp_path):
    sentence = Sentence(in_sentence("An owl <image 1>.", images_of(1)))
    with pytest.raises(UserError, match="<image 1> stands before no phrase"):
        write_inset(tmp_path / "x.json", sentence)


def test_an_edit_is_of_image_1_and_the_references_go_on_from_2():
    made = compose_sentence("put <image 2> on the <image 1> car", [OWL], (64, 64), source=OWL)
    assert made.task == "edit" and made.subjects == 12
    source, words, reference = made.spans[:3]
    assert (source.role, source.subject, source.number) == ("source", None, 1)
    assert words == Text("put ")
    assert (reference.role, reference.subject, reference.number) == ("reference", 1, 2)
    assert prompt_of(made) == "put <image 2> on the <image 1> car"
    with pytest.raises(UserError, match="13 images, but at most 12"):
        compose_sentence("x", [OWL] * 12, None, source=OWL)
    with pytest.raises(UserError, match="image 2: float32"):
        compose_sentence("x", [OWL.astype(np.float32)], None, source=OWL)


def test_two_images_of_one_phrase_are_not_written_as_one(tmp_path):
    images = [Image(OWL, number=n, phrase="dog") for n in (1, 2)]
    spans = (Text("A "), images[0], Text(" dog and a "), images[1], Text(" dog."))
    with pytest.raises(UserError, match="two images have one phrase"):
        write_inset(tmp_path / "x.json", Sentence(spans))
