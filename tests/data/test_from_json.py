"""MacroData's published layout, out and back; and what is wrong with files is told, file by file."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data import build as command
from data.macrodata import layout
from data.macrodata.from_json import Builder, Options, files_of, options_of
from macro.inputs.dataset_builder import build
from macro.inputs.sources import JsonFolderSource, open_source
from macro.sentence.formats import read
from macro.sentence.prompt import images_by_number, prompt_of
from macro.sentence.spans import Image
from macro.utils import images as image_io
from macro.utils.errors import UserError
from tests.data import toy

MOST = (3, 5, 7, 12)  # references in each of toy.BUCKETS


class LayoutToys(layout.LayoutBuilder, skip_registration=True):
    """The toy data set, written in the published layout too."""

    name = "toys"
    engine = toy.Builder.engine
    needs_provider = False
    VERSION = toy.Builder.VERSION


@pytest.fixture
def made(tmp_path):
    """A folder with 24 toy samples in both layouts."""
    build(LayoutToys, str(tmp_path / "made"), 3, 24, toy.Options(strict=0.1), shard=8)
    return tmp_path / "made"


def imported(folder, out, *more):
    with pytest.raises(SystemExit) as left:
        command.command(["build", "macrodata", f"--from_json={folder}", f"--out={out}", *more])
    return left.value.code


def held(sentence):
    """What the published format can hold of a sentence."""
    images = [(image.pixels.tolist(), image.subject) for image in images_by_number(sentence)]
    return sentence.task, sentence.idx, prompt_of(sentence), images, sentence.target.pixels.tolist()


def test_published_layout(made):
    source = open_source(str(made))
    files = sorted((made / "data").glob("**/*.json"))
    assert len(files) == len(source) and not list(made.glob("*json-*"))
    folders = {str(path.parent.relative_to(made)) for path in files}
    assert folders <= {
        f"data/filter/{task}/train/{bucket}" for task in ("customization", "spatial") for bucket in toy.BUCKETS
    }
    assert len(folders) == 8
    for path in files:
        record = json.loads(path.read_text())
        assert set(record) == {"task", "idx", "prompt", "input_images", "output_image"}
        assert record["task"] == path.parts[-4]
        for name in [*record["input_images"], record["output_image"]]:
            assert "/" not in name and (path.parent / name).is_file()
        count = len(record["input_images"])
        assert path.parent.name == next(name for name, most in zip(toy.BUCKETS, MOST, strict=True) if count <= most)
    assert len(JsonFolderSource(made / "data")) == len(source)
    assert read(files[0]).task == files[0].parts[-4]


def test_round_trip(made, tmp_path, capsys):
    assert imported(made / "data", tmp_path / "back") == 0
    assert "all places are filled" in capsys.readouterr().out
    there, back = open_source(str(made / "toys")), open_source(str(tmp_path / "back"))
    assert sorted(map(held, there)) == sorted(map(held, back)) and len(back) > 16
    assert all(span.path is None for sentence in back for span in sentence if isinstance(span, Image))
    noted = back[0].notes
    assert (made / "data" / noted["file"]).is_file() and noted["bucket"] == Path(noted["file"]).parent.name


def test_the_layout_of_a_stopped_build_is_finished(made, tmp_path):
    whole = {path.relative_to(made): path.read_bytes() for path in made.glob("data/**/*") if path.is_file()}
    builder = LayoutToys(data_dir=str(made), seed=3, num=24, options=toy.Options(strict=0.1), shard=8)
    half, final = builder._half, made / "data" / "filter"
    half.mkdir()
    # Killed between two tasks: one is whole, of the other some files are there and one was lost in the middle.
    os.makedirs(half / "spatial")
    os.rename(final / "spatial" / "train", half / "spatial" / "train")
    lost = sorted(half.glob("**/*.json"))[3]
    lost.unlink()
    kept = sorted(half.glob("**/*.json"))[0].stat().st_mtime_ns
    builder.download_and_prepare()
    now = {path.relative_to(made): path.read_bytes() for path in made.glob("data/**/*") if path.is_file()}
    assert now == whole and not half.exists()
    assert kept in {path.stat().st_mtime_ns for path in final.glob("spatial/**/*.json")}
    builder.download_and_prepare()  # and once more is nothing


def test_somebody_elses_layout_is_left_alone(tmp_path):
    (tmp_path / "data" / "filter" / "spatial" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="is there already"):
        build(LayoutToys, str(tmp_path), 3, 4, toy.Options())
    with pytest.raises(UserError, match="must be local"):
        build(LayoutToys, "gs://bucket/x", 3, 4, toy.Options())


def damage(folder):
    """Spoils files one way each; {file: what its dead letter says}."""
    files = [path for path in sorted(folder.glob("**/*.json"))]
    secret = folder.parent / "secret.png"
    image_io.save(secret, np.zeros((4, 4, 3), np.uint8))
    (files[5].parent / "link.png").symlink_to(secret)

    def edit(path, **changes):
        record = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))

    files[0].write_text("{not json")
    files[1].write_text("[" * 100_000)
    edit(files[2], prompt=None)
    edit(files[3], output_image="../../../../../secret.png")
    edit(files[4], output_image=str(secret))
    edit(files[5], output_image="link.png")
    edit(files[6], output_image="absent.png")
    edit(files[7], prompt="a <image 99>")
    edit(files[8], input_images="x.png")
    edit(files[9], output_image=None)
    edit(files[10], prompt="half \ud800")
    (files[11].parent / "broken.png").write_bytes(b"\x89PNG no more")
    edit(files[11], output_image="broken.png")
    edit(files[12], idx="twelve")
    said = (
        "not JSON", "not JSON", "'prompt'", "outside", "outside", "outside", "absent.png", "99", "input_images",
        "output_image", "half a character", "broken.png", "idx",
    )  # fmt: skip
    return {str(path.relative_to(folder)): text for path, text in zip(files, said, strict=False)}


def test_what_is_wrong_goes_to_the_dead_letters_and_the_rest_goes_on(made, tmp_path, capsys):
    folder = made / "data"
    there = len(files_of(str(folder), "train"))
    wrong = damage(folder)
    assert imported(folder, tmp_path / "back", "--shard=5") == 0
    out = capsys.readouterr().out
    assert f"{len(wrong)} places stayed EMPTY" in out
    dead = [json.loads(line) for line in (tmp_path / "back" / "macrodata-dead.jsonl").read_text().splitlines()]
    names = files_of(str(folder), "train")
    assert {names[one["index"]] for one in dead} == set(wrong)
    for one in dead:
        assert wrong[names[one["index"]]] in one["reason"] and names[one["index"]].split("/")[-1] in one["reason"]
        assert one["task"] in ("customization", "spatial") and one["bucket"] in toy.BUCKETS
        assert str(tmp_path) not in one["reason"]
    assert len(open_source(str(tmp_path / "back"))) == there - len(wrong)
    summary = json.loads((tmp_path / "back" / "macrodata-summary.json").read_text())
    assert summary["empty"] == summary["dead"] == len(wrong)
    refused = sum(one["step"] == "read" for one in dead)
    assert summary["filters"]["read"] == {"kept": 0, "dropped": refused}
    assert summary["filters"]["inside"] == {"kept": there - refused - 3, "dropped": 3}


def test_splits_numbers_and_other_files(made, tmp_path):
    folder = made / "data"
    with pytest.raises(UserError, match="no .json files of split eval"):
        options_of(Options(), str(folder), "eval")
    shutil.copytree(folder / "filter" / "spatial" / "train", folder / "filter" / "spatial" / "eval")
    files_of.cache_clear()
    train, held_out = (set(files_of(str(folder), split)) for split in ("train", "eval"))
    assert train and held_out and not train & held_out
    before = options_of(Options(), str(folder), "train")
    assert imported(folder, tmp_path / "few", "--num=3", "--engine.arrangement=image_first") == 0
    assert len(open_source(str(tmp_path / "few"))) == 3
    sorted(folder.glob("**/train/**/*.json"))[0].write_text("{}")
    assert options_of(Options(), str(folder), "train").digest != before.digest
    assert Builder(data_dir=str(tmp_path), options=before).key != Builder(data_dir=str(tmp_path), num=3).key


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["macrodata", "--from_json=/nowhere"], "no .json files"),
        (["music", "--from_json=/nowhere"], "reads macrodata's published layout"),
        (["macrodata", "--from_json=/nowhere", "--engine.arrangement=x"], "--engine.arrangement=x"),
        (["macrodata", "--from_json=/nowhere", "--provider.rays=1"], "macrodata asks no provider"),
    ],
)
def test_mistakes(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        command.command(["build", *arguments, f"--out={tmp_path}"])
    error = capsys.readouterr().err
    assert left.value.code == 2 and said in error and error.count("\n") == 1
