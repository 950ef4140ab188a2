"""`python -m data.build`: from a command line to a data set, its summary and its dead letters."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from data import build as command
from data.builders import EngineBuilder, builder_of
from data.providers import parse_provider
from data.shards import provider_of
from data.summary import printed
from macro.inputs.dataset_builder import build
from macro.inputs.sources import open_source
from macro.utils import images as image_io
from macro.utils.config import parse_overrides
from macro.utils.errors import UserError
from tests.data import toy
from tests.judges.server import serving, written


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command with a toy data set among ours; gives the exit code and what it printed."""
    monkeypatch.setitem(command.DATASETS, "toys", "tests.data.toy:ENGINE")

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            command.command(["data.build", *map(str, arguments)])
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


def test_a_build(run, tmp_path):
    code, out, err = run("toys", "--num=20", f"--out={tmp_path}", "--shard=8", "--seed=3", "--engine.strict=0.6")
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "toys" / "1.0.0")
    assert "20 of 20 places" in err and "left" in err
    source = open_source(str(tmp_path / "toys"))
    summary = json.loads((tmp_path / "toys-summary.json").read_text())
    dead = [json.loads(line) for line in (tmp_path / "toys-dead.jsonl").read_text().splitlines()]
    indices = [source[i].idx for i in range(len(source))]
    assert indices == sorted(indices) and summary["samples"] == len(source) < 20 == summary["places"]
    assert summary["empty"] == 20 - len(source) and f"{summary['empty']} places stayed EMPTY" in out
    assert summary["dead"] == len(dead)
    assert dead == sorted(dead, key=lambda one: (one["index"], one["attempt"]))
    lost = {one["index"] for one in dead if one["attempt"] == 2}
    assert sorted(lost | set(indices)) == list(range(20)) and not lost & set(indices)
    assert list(summary["filters"]) == ["draw", "area"]
    assert summary["filters"]["area"]["kept"] == len(source)
    assert sum(n for task in summary["tasks"].values() for n in task.values()) == len(source)
    mean = sum(len(sentence.images) for sentence in source) / len(source)
    assert summary["references_mean"] == pytest.approx(mean) and f"{mean:.2f} references" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toys", "toys-dead.jsonl", "toys-summary.json"]


def test_train_and_eval_share_no_sample(run, tmp_path):
    for split in ("train", "eval"):
        code, _, err = run("music", "--num=6", f"--out={tmp_path / split}", f"--split={split}", "--size=16", "--seed=1")
        assert code == 0, err
    train, others = (open_source(str(tmp_path / split / "music")) for split in ("train", "eval"))
    pictures = [{sample.target.pixels.tobytes() for sample in source} for source in (train, others)]
    assert len(pictures[0]) == len(train) and not pictures[0] & pictures[1]
    code, _, err = run("music", "--num=6", f"--out={tmp_path}", f"--seed={10**9}")
    assert code == 2 and "kept for evaluations" in err


def test_all_places_filled_is_said(run, tmp_path):
    code, out, _ = run("toys", "--num=2", f"--out={tmp_path}", "--engine.strict=0", "--seed=5")
    assert code == 0 and "all places are filled" in out and "EMPTY" not in out


def test_built_again_is_kept_and_another_is_refused(run, tmp_path):
    def built(*more):
        return run("toys", "--num=6", f"--out={tmp_path}", f"--engine.log={tmp_path}/log", *more)

    assert built()[0] == 0
    made = (tmp_path / "log").read_text()
    code, out, _ = built()
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "toys" / "1.0.0")
    assert (tmp_path / "log").read_text() == made
    for more, what in (
        (["--seed=1"], "of seed 0, not 1"),
        (["--engine.strict=0.5"], "made with other options"),
        (["--shard=2"], "of shard 64, not 2"),
        (["--split=eval"], "of split train, not eval"),
    ):
        code, _, err = built(*more)
        assert code == 2 and err.count("\n") == 1 and what in err


def test_shards_that_hold_nothing_are_left_out(run, tmp_path):
    """One place a shard: what was dropped for good is an empty shard."""
    code, *_ = run("toys", "--num=12", f"--out={tmp_path}", "--shard=1", "--engine.strict=0.7")
    source = open_source(str(tmp_path))
    files = list((tmp_path / "toys" / "1.0.0").glob("*array_record*"))
    assert code == 0 and 0 < len(source) < 12 and len(files) == len(source)
    assert [source[i].idx for i in range(len(source))] == sorted(source[i].idx for i in range(len(source)))


def test_nothing_left_is_an_error_with_its_reasons_on_disk(run, tmp_path):
    code, out, err = run("toys", "--num=5", f"--out={tmp_path}", "--engine.strict=1")
    assert code == 2 and not out and err.splitlines()[-1].startswith("error: toys: nothing is left of 5 places")
    assert "area" in err.splitlines()[-1] and "toys-dead.jsonl" in err.splitlines()[-1]
    assert len((tmp_path / "toys-dead.jsonl").read_text().splitlines()) == 15
    assert json.loads((tmp_path / "toys-summary.json").read_text())["samples"] == 0
    with pytest.raises(UserError, match="no data set"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tois"], "'tois' is no data set of ours; there are edit, inset, macrodata, music, scenes, toys"),
        ([], "dataset is missing"),
        (["toys", "scenes"], "'scenes' is not a flag"),
        (["toys", "--num=0"], "data.num: 0"),
        (["toys", "--workers=0"], "--workers=0"),
        (["toys", "--shard=0"], "--shard=0"),
        (["toys", "--runner=FlunkRunner"], "there are local, DirectRunner, FlinkRunner"),
        (["toys", "--runner_options=--a=b"], "--runner_options: are for Beam's"),
        (["music", "--provider=oracle"], "--provider=oracle: there are procedural, foundation"),
        (["toys", "--provider.rays=1"], "toys asks no provider"),
        (["music", "--provider.rays=9"], "rays=9"),
        (["music", "--provider=foundation", "--provider.vln=x"], "did you mean 'vlm'?"),
        (["music", "--provider=foundation", "--material.upp=z"], "did you mean 'up'?"),
        (["music", "--provider=foundation", "--material=/nowhere"], "no such folder of material"),
        (["music", "--provider=foundation"], "OPENAI_BASE_URL"),
        (["music", "--material=/nowhere"], "procedural makes its own"),
        (["music", "--size=big"], "size"),
        (["music", "--engine.counts=(1,'a')"], "--engine.counts='a': must be of type int"),
        (["toys", "--engine.strikt=1"], "--engine.strikt: there is no such option; did you mean 'strict'?"),
        (["toys", "--engine.strict=much"], "--engine.strict='much': must be of type float"),
        (["toys", "--engine.strict"], "--engine.strict: has no value"),
        (["music", "--provider.noise.boxs=1"], "did you mean 'noise.boxes'?"),
        (["toys", "--split=a/b"], "--split='a/b'"),
        (["toys", "--engine.mistaken=0"], "toy: a mistake of the user's"),
        (["toys", "--nom=3"], "nom"),
    ],
)
def test_mistakes_take_one_line(run, tmp_path, monkeypatch, arguments, said):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    code, out, err = run(*arguments, f"--out={tmp_path}")
    assert code == 2 and not out and err.count("\n") == 1 and err.startswith("error: ") and said in err


def test_out_must_be_there_and_writable(run, tmp_path):
    assert "--out is missing" in run("toys")[2]
    (tmp_path / "file").write_text("")
    code, _, err = run("toys", f"--out={tmp_path / 'file'}")
    assert code == 2 and "cannot be written" in err


@dataclasses.dataclass(frozen=True)
class Part:
    size: int = 128
    reference_size: int = 64


@dataclasses.dataclass(frozen=True)
class Whole:
    size: int = 128
    part: Part = dataclasses.field(default_factory=Part)


def test_size_is_every_size(run, tmp_path):
    assert command.sizes(Whole, 32) == {"size": "32", "part.size": "32"}
    assert parse_overrides(Whole, command.sizes(Whole, 32), "--engine") == Whole(32, Part(32, 64))
    for out, more, size in (("a", [], 16), ("b", ["--engine.size=24"], 24)):
        assert run("toys", "--num=3", "--size=16", f"--out={tmp_path / out}", *more)[0] == 0
        assert open_source(str(tmp_path / out))[0].target.size == (size, size)


def test_providers():
    from macro.engines import foundation, material, procedural

    assert parse_provider("procedural", {"noise.boxes": "0.1"}, "", {}).options == procedural.Options(
        noise=procedural.Noise(boxes=0.1)
    )
    ours = parse_provider("foundation", {"vlm": "v", "threads": "2"}, "", {"up": "z"})
    assert ours.options.models == foundation.Options(vlm="v", threads=2)
    assert ours.options.reading == material.Options(up="z")
    drawn = parse_provider("foundation", {"drawer.steps": "4", "drawer.guidance": "1"}, "", {}).options.models.drawer
    assert (drawn.steps, drawn.guidance, drawn.name) == (4, 1.0, foundation.Options().drawer.name)
    local = parse_provider("foundation", {"llm": "local:a", "vlm": "local:b"}, "", {})
    provider = provider_of(local)
    assert provider is provider_of(parse_provider("foundation", {"vlm": "local:b", "llm": "local:a"}, "", {}))
    with pytest.raises(UserError, match="--material is missing"):
        provider.sources.photo(0, 0)


def test_bad_answers_and_bad_files_are_dead_letters_and_what_they_cost_is_told(run, tmp_path):
    photos = tmp_path / "material" / "photos"
    photos.mkdir(parents=True)
    image_io.save(photos / "good.png", np.zeros((32, 32, 3), np.uint8))
    (photos / "broken.png").write_bytes(b"no image")

    def answer(request, count):
        return written("{half of it" if count % 2 else {"title": "another field"})

    with serving(answer) as server:
        code, _, err = run(
            "inset", "--num=6", "--shard=2", f"--out={tmp_path}", f"--material={photos.parent}",
            "--engine.video=0", "--provider=foundation", f"--provider.base_url={server.url}",
            f"--provider.cache={tmp_path / 'answers'}", "--provider.threads=1",
        )  # fmt: skip
        asked = len(server.requests)
    assert code == 2 and "nothing is left of 6 places" in err and "inset-dead.jsonl" in err
    letters = [json.loads(line) for line in (tmp_path / "inset-dead.jsonl").read_text().splitlines()]
    reasons = {(letter["step"], letter["reason"].split(";")[0].split(": ")[-1]) for letter in letters}
    assert ("photo", "not an image that can be read") in reasons
    assert {"the answer has no field 'caption'", "it holds no JSON object"} & {why for step, why in reasons}
    assert {step for step, _ in reasons} == {"photo", "caption"}
    summary = json.loads((tmp_path / "inset-summary.json").read_text())
    assert summary["dead"] == len(letters) > 0 == summary["samples"] and summary["empty"] == 6
    assert summary["spent"]["asked"] == summary["spent"]["malformed"] == asked > 0
    assert f"asked {asked}" in printed(summary)


def test_where_models_answer_changes_no_data_set_and_is_not_written_down(tmp_path):
    def builder(**models):
        values = {"llm": "l", "vlm": "v", **models}
        provider = parse_provider("foundation", values, "", {})
        return builder_of("music")(data_dir=str(tmp_path), provider=provider)

    ours = builder(base_url="http://me:secret@host/v1", threads="3", retries="0", cache="elsewhere")
    assert ours.key == builder().key != builder(temperature="0").key
    assert builder(**{"drawer.steps": "3"}).key != ours.key
    assert "secret" not in ours._recipe_text() and '"vlm": "v"' in ours._recipe_text()


@pytest.mark.parametrize("dataset", sorted(command.DATASETS))
def test_builders_belong_to_their_engines(dataset):
    builder = builder_of(dataset)
    engine = command.engine_of(builder)
    assert issubclass(builder, EngineBuilder)
    assert builder.name == dataset == engine.name and str(builder.VERSION) == engine.version


@pytest.mark.parametrize("dataset", sorted(command.DATASETS))
def test_every_data_set_has_its_card(dataset):
    card = (Path(command.__file__).parent / dataset / "CARD.md").read_text()
    assert card.startswith(f"# {dataset}\n") and f"python -m data.build {dataset} --num=" in card
    for word in ("Apache-2.0", "**Packing.**", "**Limits.**", f'builder_of("{dataset}")('):
        assert word in card


def test_from_python_too(tmp_path):
    folder = build(toy.Builder, str(tmp_path / "a"), 3, 9, toy.Options(), shard=4)
    builder = toy.Builder(data_dir=str(tmp_path / "b"), seed=3, num=9, shard=4)
    builder.download_and_prepare()
    assert list(open_source(folder)) == list(open_source(str(tmp_path / "b")))
    assert builder.as_data_source(split="train") is not None and builder.info.splits["train"].num_examples > 0


def test_help_says_what_there_is(run):
    code, out, _ = run("--help")
    assert code == 0 and "dataset: what to build: edit, inset, macrodata, music, scenes" in out
    assert "engine_options: --engine.key=value" in out and "--from_json" in out
