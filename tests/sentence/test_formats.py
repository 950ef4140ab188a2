"""Files of MacroData and INSET to sentences and back: every mistake in a file is named."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence.prompts import OWL, QUICK, images_of, names, prompts

from macro.sentence.formats import load_images, read
from macro.sentence.formats.inset import from_phrase_map
from macro.sentence.formats.macrodata import write_macrodata
from macro.sentence.prompt import arrange, images_by_number, in_sentence, prompt_of
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError
from macro.utils.images import load, save

REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "macrodata"


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
            sentence = read(given)
            write_macrodata(back, arrange(sentence, arrangement))
            assert json.loads(back.read_text("utf-8")) == record
            assert read(back) == sentence
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
    back = load_images(read(tmp_path / "new" / "7.json"))
    assert [image.pixels[0, 0, 0] for image in back.images] == [7, 8] and back.target.pixels[0, 0, 0] == 9
    assert back.target.size == (4, 6)


def test_a_json_in_another_folder_still_finds_its_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("images/owl.png", OWL)
    write_macrodata("lists/1.json", Sentence((Image(path="images/owl.png"), Text("An owl."))))
    assert json.loads(Path("lists/1.json").read_text())["input_images"] == ["../images/owl.png"]
    assert load_images(read("lists/1.json")).images[0].pixels.shape == (4, 6, 3)


def test_only_images_of_things_are_bound_to_subjects(tmp_path):
    record = {"prompt": "Go on.", "input_images": ["a.png", "b.png"]}
    for task, subjects in (("customization", [1, 2]), ("temporal", [None, None])):
        (tmp_path / "x.json").write_text(json.dumps({**record, "task": task}))
        assert {image.role for image in read(tmp_path / "x.json").images} == {"reference"}
        assert [image.subject for image in read(tmp_path / "x.json").images] == subjects


def test_the_first_image_of_an_edit_is_its_source(tmp_path):
    record = {"prompt": "Put <image 2> in.", "input_images": ["a.png", "b.png"], "task": "edit"}
    (tmp_path / "x.json").write_text(json.dumps(record))
    images = images_by_number(read(tmp_path / "x.json"))
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
        read(file)
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
        read(file)


def test_an_unwritable_place_is_named_and_left_clean(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        write_macrodata(tmp_path / "file" / "x.json", Sentence((Image(path="/a.png"), Text("x"))))
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real MacroData samples are not on this machine")
@pytest.mark.parametrize("name", ["1-3_sample1", "4-5_sample1"])
def test_real_macrodata_loads_and_is_written_back(tmp_path, name):
    record = json.loads((REAL / f"{name}.json").read_text())
    sentence = load_images(read(REAL / f"{name}.json"))
    assert prompt_of(sentence) == record["prompt"]
    assert prompt_of(arrange(sentence, "image_first")) == record["prompt"]
    assert all(image.pixels.std() > 10 for image in sentence.images) and sentence.target.size[0] > 300
    np.testing.assert_array_equal(images_by_number(sentence)[0].pixels, load(REAL / record["input_images"][0]))
    write_macrodata(tmp_path / "x.json", sentence)
    assert load_images(read(tmp_path / "x.json")).target == sentence.target


# ---- INSET ----


def test_phrases_become_images_in_the_sentence(tmp_path):
    record = {
        "caption": "A dog house behind a dog.",
        "map": {"dog": 1, "dog house": 3},
        "images": ["dog.png", "style.png", "house.png"],
    }
    (tmp_path / "x.json").write_text(json.dumps(record))
    sentence = read(tmp_path / "x.json")
    assert prompt_of(sentence) == "A <image 3> dog house behind a <image 1> dog."
    silent, words, house, _, dog, end = sentence.spans
    assert (silent.phrase, house.phrase, dog.phrase) == (None, "dog house", "dog")
    assert words == Text("A ") and end == Text(" dog.")


def test_an_engine_places_images_as_a_file_does():
    owl, box, style = images_of(3)
    spans = from_phrase_map("A red owl on an owl box.", {"owl box": 2, "owl": 1}, [owl, box, style])
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
        from_phrase_map(caption, phrases, images_of(2), "answer")
    assert str(error.value).startswith("answer: ") and says in str(error.value)


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
        read(file)
    assert str(error.value).startswith(f"{file}: ") and says in str(error.value)
