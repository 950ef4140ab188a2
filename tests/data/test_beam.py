"""Apache Beam: the files are those of one plain loop, byte by byte, and its counters count what the filters said."""

import functools
import json
from pathlib import Path

import pytest

pytest.importorskip("apache_beam")

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from data import beam as ours
from data import build as command
from data.builders import builder_of
from data.providers import procedural
from data.shards import Recipe
from macro.engines.procedural import Options
from macro.inputs.dataset_builder import build
from macro.inputs.shards import Shards
from macro.utils.errors import UserError
from tests.data import toy

ROOT = Path(__file__).resolve().parents[2]


def files(folder):
    found = (path for path in Path(folder).rglob("*") if path.is_file() and not path.name.endswith("summary.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    build(toy.Builder, str(folder), 3, 22, toy.Options(), shard=4)
    return folder


def test_the_direct_runner_writes_what_a_loop_writes(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(command.DATASETS, "toys", "tests.data.toy:ENGINE")
    with pytest.raises(SystemExit) as left:
        command.command(
            ["build", "toys", "--num=22", f"--out={tmp_path}", "--shard=4", "--seed=3", "--runner=DirectRunner"]
        )
    printed = capsys.readouterr()
    assert left.value.code == 0 and "22 of 22 places" in printed.err
    assert files(tmp_path) == files(plain)
    ours_, theirs = (json.loads((folder / "toys-summary.json").read_text()) for folder in (tmp_path, plain))
    timed = ("seconds", "rate")
    assert {k: v for k, v in ours_.items() if k not in timed} == {k: v for k, v in theirs.items() if k not in timed}


@pytest.mark.slow
def test_several_workers_write_the_same(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    build(toy.Builder, str(tmp_path), 3, 22, toy.Options(), shard=4, runner=ours.run, workers=2)
    assert files(tmp_path) == files(plain)


def test_only_what_is_missing_is_made(plain, tmp_path):
    log = tmp_path / "log"
    options = toy.Options(log=str(log))
    builder = toy.Builder(data_dir=str(tmp_path), seed=3, num=22, options=options, shard=4, runner=ours.run)
    for number in (0, 2, 5):
        assert list(ours.run(builder.recipe, [number])) == [number]
    log.unlink()
    builder.download_and_prepare()
    first = sorted(int(line.split()[0]) for line in log.read_text().splitlines() if line.endswith(" 0"))
    assert first == [4, 12, 16]
    made = {name: data for name, data in files(tmp_path).items() if "array_record" in name}
    assert made == {name: data for name, data in files(plain).items() if "array_record" in name}
    assert list(ours.run(builder.recipe, [])) == []


def test_every_step_is_a_transform_and_every_filter_a_counter(tmp_path, plain):
    recipe = Recipe(toy.Builder.engine, toy.Options(), toy.PROVIDER, 3, Shards(str(tmp_path), 22, 4))
    pipeline = beam.Pipeline(ours._DIRECT, PipelineOptions([]))
    ours.expand(pipeline, recipe, range(6))
    labels = []

    class Visitor(beam.pipeline.PipelineVisitor):
        def visit_transform(self, node):
            labels.append(node.full_label)

    pipeline.visit(Visitor())
    steps = [f"toys/{name}" for name in ("begin", "draw", "area", "try again")]
    assert [label for label in labels if label in steps] == steps
    assert {"toys/samples", "toys/dead letters"} <= set(labels)
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace("toys"))["counters"]
    counted = {counter.key.metric.name: counter.committed for counter in counters}
    filters = json.loads((plain / "toys-summary.json").read_text())["filters"]
    said = {f"{name} {result}": n for name, counts in filters.items() for result, n in counts.items() if n}
    assert counted == said


@pytest.mark.parametrize(
    ("options", "more", "said"),
    [
        (toy.Options(mistaken=5), {}, "a mistake of the user's"),
        (toy.Options(), {"runner": functools.partial(ours.run, runner="DataflowRunner")}, "option: project"),
        (toy.Options(), {"workers": 2, "runner": functools.partial(ours.run, runner="FlinkRunner")}, "FlinkRunner's"),
    ],
)
def test_mistakes_are_the_users_through_beam_too(tmp_path, options, more, said):
    with pytest.raises(UserError, match=said):
        build(toy.Builder, str(tmp_path), 3, 9, options, shard=4, **{"runner": ours.run} | more)


def test_what_breaks_in_a_worker_is_not_swallowed(tmp_path):
    with pytest.raises(Exception, match="toy"):
        build(toy.Builder, str(tmp_path), 3, 9, toy.Options(broken=5), shard=4, runner=ours.run)
    assert not list(tmp_path.glob("toys/*"))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["music", "macrodata", "inset", "edit"])
def test_real_engines_give_the_same_bytes_everywhere(dataset, tmp_path):
    """One process, two others, Beam: rendering included."""
    builder = builder_of(dataset)
    engine = command.engine_of(builder)
    names = {name: "16" for name in command.option_names(engine.options) if name.endswith("size")}
    options = command.parse_overrides(engine.options, names, "--engine")
    more = {"shard": 3, "provider": procedural(Options(size=24, rays=1)) if builder.needs_provider else None}
    ways = {"alone": {}, "two": {"workers": 2}, "beam": {"runner": ours.run}}
    for way, how in ways.items():
        build(builder, str(tmp_path / way), 1, 6, options, **more, **how)
    alone = files(tmp_path / "alone")
    assert alone == files(tmp_path / "two") == files(tmp_path / "beam")
    assert any("array_record" in name for name in alone)
