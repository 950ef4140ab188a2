"""Sentences through records: round trips, whole or not at all, going on after a stop."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macro.inputs import dataset_builder
from macro.inputs.dataset_builder import builder_class, ensure, prepare
from macro.inputs.serialization import decode_sentence, encode_sentence
from macro.inputs.sources import open_source
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text, Truth
from macro.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    size: int = 8


def truth(rng, subjects):
    masks = rng.integers(0, 2, (2, subjects, 9, 7)).astype(bool)
    return Truth(
        kinds=("dog",) * subjects,
        palettes=rng.random((subjects, 3, 3), np.float32),
        textures=("plain",) * subjects,
        colours=((("red",), ("red", "blue"), ()) * subjects)[:subjects],
        boxes=rng.random((subjects, 4)),
        masks=masks[0],
        amodal=masks[1],
        visibility=rng.random(subjects, np.float32),
        depth_order=tuple(range(1, subjects + 1)),
        relations=((1, "left of", 2), (1, "between", (2, 3))),
        questions=(("is the dog left of the ünïcorn?", True),),
        albedo=rng.integers(0, 256, (9, 7, 3), np.uint8) if subjects % 2 else None,
    )


def make(seed, start, count, options):
    return [one(np.random.default_rng((seed, i)), i, options.size) for i in range(start, start + count)]


def one(rng, index, size):
    subjects = int(rng.integers(0, 13))
    spans = [Text("draw "), Text("¿qué?\n", learn=True)]
    for n in range(1, subjects + 1):
        pixels = rng.integers(0, 256, (size, int(rng.integers(1, 9)), 3), np.uint8)
        role, phrase = ("source", "a dog") if n == 3 else ("reference", None)
        spans.append(Image(pixels, subject=n, number=n, role=role, phrase=phrase))
    spans.append(Plan("so", rng.integers(0, 13, (8, 8)).astype(np.int8) if index % 2 else None))
    spans.append(Target(rng.integers(0, 256, (size, size, 3), np.uint8)))
    return Sentence(tuple(spans), "edit", index, truth(rng, subjects) if index % 3 else None)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_records_round_trip(seed, index):
    made = one(np.random.default_rng(seed), index, 5)
    assert decode_sentence(encode_sentence(made)) == made


def test_spans_without_pixels_round_trip():
    made = Sentence((Image(path="a.png"), Target(size=(32, 48))), idx=3)
    assert decode_sentence(encode_sentence(made)) == made
    assert decode_sentence(encode_sentence(Sentence((Target(path="b.png"),)))).target.path == "b.png"


def test_data_set_round_trip(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_builder, "SHARD", 4)
    folder = prepare("toys", str(tmp_path), 3, 10, make, Options())
    made = make(3, 0, 10, Options())
    for where in (folder, str(tmp_path)):
        source = open_source(where)
        assert len(source) == 10 and [source[i] for i in range(10)] == made
    sent = pickle.loads(pickle.dumps(source))
    assert sent[9] == made[9]
    assert open_source(folder, truth=False)[1] == made[1].replace(truth=None)
    assert not list(tmp_path.glob("*.shards-*"))


def test_outline_has_shapes_but_no_content(tmp_path):
    folder = prepare("toys", str(tmp_path), 3, 3, make, Options())
    full, outline = open_source(folder)[2], open_source(folder).outline(2)
    assert outline.text == full.text and outline.plan == full.plan and outline.truth is None
    assert [i.pixels.shape for i in outline.images] == [i.pixels.shape for i in full.images]
    assert not outline.target.pixels.any() and outline.target.pixels.strides == (0, 0, 0)


def test_a_stopped_build_goes_on_and_is_never_seen_half_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dataset_builder, "SHARD", 4)
    asked = []

    def stopping(seed, start, count, options):
        asked.append(start)
        if start == 8 and len(asked) == 3:
            raise KeyboardInterrupt
        return make(seed, start, count, options)

    with pytest.raises(KeyboardInterrupt):
        prepare("toys", str(tmp_path), 3, 14, stopping, Options())
    with pytest.raises(UserError, match="holds no data set"):
        open_source(str(tmp_path))
    folder = prepare("toys", str(tmp_path), 3, 14, stopping, Options())
    assert asked == [0, 4, 8, 8, 12]
    assert list(open_source(folder)) == make(3, 0, 14, Options())
    assert "14 of 14 sentences" in capsys.readouterr().err
    prepare("toys", str(tmp_path), 3, 14, stopping, Options())
    assert len(asked) == 5  # what is there is kept


def test_another_seed_does_not_take_over_shards(tmp_path):
    places = {
        builder_class("toys", make, "1.0.0")(data_dir=str(tmp_path), seed=seed, num=2, options=options).shards.folder
        for seed, options in ((0, Options()), (1, Options()), (0, Options(size=9)))
    }
    assert len(places) == 3


def test_ensure_builds_once_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = [ensure("toys", make, "1.0.0", seed, 2, Options()) for seed in (0, 0, 1)]
    assert folders[0] == folders[1] != folders[2] and folders[0].startswith(str(tmp_path))
    assert open_source(folders[2])[1] == make(1, 1, 1, Options())[0]


def test_another_version_is_built_anew(tmp_path):
    old, new = (ensure("toys", make, version, 0, 2, Options(), str(tmp_path)) for version in ("1.0.0", "1.0.1"))
    assert old != new and open_source(old)[0] == open_source(new)[0]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="data.num"):
        prepare("toys", str(tmp_path), 0, 0, make, Options())
    with pytest.raises(UserError, match="no data set"):
        open_source(str(tmp_path / "absent"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        prepare("toys", str(tmp_path / "file"), 0, 1, make, Options())
