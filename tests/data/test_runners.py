"""One process, several, killed at any moment: the same bytes, and no finished shard twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data.runners import local, side_by_side
from macro.inputs.dataset_builder import build
from macro.inputs.sources import open_source
from macro.utils.errors import UserError
from tests.data import toy

ROOT = Path(__file__).resolve().parents[2]
# The command, with the toys among its data sets; its file is imported again by every worker.
COMMAND = """
import signal, sys
from data import build
build.DATASETS["toys"] = "tests.data.toy:ENGINE"
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    build.command(["data.build", *sys.argv[1:]])
"""


def files(folder):
    """What a build has left, but for how long it took."""
    found = (path for path in Path(folder).rglob("*") if path.is_file() and not path.name.endswith("summary.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def start(tmp_path):
    """Starts the toy build as a process of its own session."""
    script = tmp_path / "build_toys.py"
    script.write_text(COMMAND)

    def call(out, *more):
        command = [sys.executable, str(script), "toys", "--num=24", "--shard=3", "--seed=3", f"--out={out}", *more]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )

    return call


def test_other_processes_make_the_same(tmp_path):
    for name, more in (("alone", {}), ("two", {"workers": 2})):
        build(toy.Builder, str(tmp_path / name), 3, 24, toy.Options(), shard=5, **more)
    assert files(tmp_path / "alone") == files(tmp_path / "two")


def test_shard_size_changes_no_sample(tmp_path):
    folders = [build(toy.Builder, str(tmp_path / str(size)), 3, 24, toy.Options(), shard=size) for size in (5, 24)]
    assert list(open_source(folders[0])) == list(open_source(folders[1]))


def test_mistakes_in_workers_are_told_and_the_next_call_goes_on(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(UserError, match="a mistake of the user's"):
        build(toy.Builder, str(tmp_path), 3, 9, toy.Options(mistaken=8), shard=3, workers=2)
    with pytest.raises(ZeroDivisionError):
        build(toy.Builder, str(tmp_path), 3, 9, toy.Options(broken=8, log=str(log)), shard=3)
    assert [line.split()[0] for line in log.read_text().splitlines() if line.endswith(" 0")] == ["0", "3", "6"]
    with pytest.raises(ZeroDivisionError):
        build(toy.Builder, str(tmp_path), 3, 9, toy.Options(broken=8, log=str(log)), shard=3)
    assert [line.split()[0] for line in log.read_text().splitlines() if line.endswith(" 0")] == ["0", "3", "6", "6"]


def _die(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_a_line(tmp_path):
    with pytest.raises(UserError, match="a worker died"):
        list(side_by_side(_die, [1, 2], 2))


def test_one_worker_is_this_process_and_none_too_many():
    assert list(side_by_side(lambda item: (item, os.getpid()), [1, 2], 1)) == [(1, os.getpid()), (2, os.getpid())]
    assert list(side_by_side(lambda item: (item, os.getpid()), [1], 8)) == [(1, os.getpid())]
    assert list(local(None, [], 8)) == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment(start, tmp_path, workers):
    """SIGKILL, the parent alone: its workers leave with it."""
    rng, log = np.random.default_rng(workers), tmp_path / "log"
    more = [f"--workers={workers}", "--engine.nap=0.1", f"--engine.log={log}"]
    assert start(tmp_path / "whole", *more).wait() == 0
    whole = files(tmp_path / "whole")
    log.write_text("")
    kills = 5
    for _ in range(kills):
        process, lines = start(tmp_path / "killed", *more), len(log.read_text().splitlines())
        while len(log.read_text().splitlines()) == lines:  # it is at work
            time.sleep(0.01)
        time.sleep(0.5 * rng.random())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()  # ends when the last worker has left
        with pytest.raises(UserError, match="no data set"):
            open_source(str(tmp_path / "killed"))
    assert start(tmp_path / "killed", *more).wait() == 0
    assert files(tmp_path / "killed") == whole
    # A shard is begun anew only if it was on its way when a kill came.
    begun = [line for line in log.read_text().splitlines() if line.endswith(" 0")]
    assert len(begun) <= 8 + kills * workers


def test_interrupted_leaves_whole_shards_only(start, tmp_path):
    process = start(tmp_path, "--engine.nap=0.5")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("toys.shards-*/00000.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1].decode().splitlines()
    assert process.returncode == 130 and said[-1] == "toys: stopped; the same command goes on from here"
    [aside] = tmp_path.glob("toys.shards-*")
    files_of_a_shard = ("json", "array_record", "dead.jsonl")
    names = {path.name for path in aside.iterdir()}
    assert "00000.json" in names and all(name.split(".", 1)[1] in files_of_a_shard for name in names)
    assert not list(tmp_path.glob("toys/*"))
