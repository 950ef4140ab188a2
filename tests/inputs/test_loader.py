"""The global stream of rows: resuming, sharing out, epochs, worker processes."""

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from inputs.toy import PACKING

from macro.inputs.dataset_builder import prepare
from macro.inputs.loader import DataLoader
from macro.inputs.sources import open_source
from macro.inputs.tokenizer import Tokenizer
from macro.utils.errors import UserError


@pytest.fixture
def pipe(tokenizer, make_source):
    def build(**changes):
        return DataLoader(make_source(50), tokenizer, PACKING, 3, **({"batch_rows": 4, "workers": 0} | changes))

    return build


def flat(batch, prefix=""):
    for name, value in batch.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def assert_same(a, b):
    a, b = dict(flat(a)), dict(flat(b))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.slow
def test_resuming_anywhere_gives_the_same_batches(pipe):
    run = pipe()
    states, batches = [], []
    for _ in range(9):
        states.append(run.get_state())
        batches.append(next(run))
    assert states[8]["window"] >= 2 and any(state["row"] for state in states)
    for place in (0, 3, 6):
        again = pipe()
        again.set_state(states[place])
        for batch in batches[place:]:
            assert_same(batch, next(again))


@pytest.mark.slow
def test_every_process_count_makes_the_same_batches(pipe):
    whole = [next(run) for run in [pipe()] for _ in range(6)]
    for count in (2, 4):
        shares = [pipe(rows=range(4 * p // count, 4 * (p + 1) // count)) for p in range(count)]
        for batch in whole:
            parts = [dict(flat(next(share))) for share in shares]
            assert len({str(share.get_state()) for share in shares}) == 1
            for name, value in flat(batch):
                np.testing.assert_array_equal(value, np.concatenate([part[name] for part in parts]))


def test_going_on_with_another_process_count(pipe):
    run = pipe()
    next(run), next(run)
    shares = [pipe(rows=rows) for rows in ((0, 2), (1, 3))]
    for share in shares:
        share.set_state(run.get_state())
    batch, parts = next(run), [next(share) for share in shares]
    for rows, part in zip(((0, 2), (1, 3)), parts, strict=True):
        np.testing.assert_array_equal(batch["examples"][list(rows)], part["examples"])


def test_an_epoch_sees_every_sample_once(pipe):
    run, seen = pipe(batch_rows=1), []
    while len(seen) < 24 * 3:  # window by window: the rows of 72 global indices, 50 samples
        batch = next(run)
        seen += [int(i) for i in batch["examples"].ravel() if i >= 0]
        assert run.get_state()["examples_seen"] == len(seen)
    windows = [sorted(seen[start : start + 24]) for start in (0, 24, 48)]
    assert all(len(set(window)) == 24 for window in windows[:2])
    assert not set(windows[0]) & set(windows[1])  # both of the first epoch


def test_worker_processes_change_nothing(tmp_path, make_sentence):
    def make(seed, start, count, options):
        return [make_sentence(i) for i in range(start, start + count)]

    source = open_source(prepare("toys", str(tmp_path), 0, 50, make, None))
    runs = [DataLoader(source, Tokenizer.demo(), PACKING, 3, 4, workers=workers) for workers in (0, 1)]
    for _ in range(5):
        assert_same(*(next(run) for run in runs))
    state = runs[0].get_state()
    runs[1].set_state(state)
    assert_same(next(runs[0]), next(runs[1]))


def test_seeds_differ(pipe, tokenizer, make_source):
    other = DataLoader(make_source(50), tokenizer, PACKING, 4, batch_rows=4, workers=0)
    assert not np.array_equal(next(pipe())["examples"], next(other)["examples"])


def test_mistakes_are_named(tokenizer, make_source):
    with pytest.raises(UserError, match="empty"):
        DataLoader(make_source(0), tokenizer, PACKING, 0, 4)


def test_a_bad_sample_stops_the_run_with_its_name(tokenizer, make_source):
    small = dataclasses.replace(PACKING, text=60)
    with pytest.raises(UserError, match="packing.text"):
        list(itertools.islice(DataLoader(make_source(50), tokenizer, small, 0, 4, workers=0), 1))


KILLED = """
import os, subprocess, sys
from inputs.toy import PACKING
from macro.inputs.loader import DataLoader
from macro.inputs.sources import open_source
from macro.inputs.tokenizer import Tokenizer
if __name__ == "__main__":
    run = DataLoader(open_source(sys.argv[1]), Tokenizer.demo(), PACKING, 3, batch_rows=4, workers=1)
    next(run)
    print(subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("pgrep"), reason="reads Linux's process table")
def test_workers_do_not_outlive_a_killed_run(tmp_path, make_sentence):
    make = lambda seed, start, count, options: [make_sentence(start + i) for i in range(count)]  # noqa: E731
    folder = prepare("toys", str(tmp_path / "data"), 0, 50, make, {})
    root = Path(__file__).resolve().parents[2]
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'tests'}"}
    done = subprocess.run(
        [sys.executable, str(script), folder], capture_output=True, text=True, env=environment, timeout=300
    )
    workers = [int(pid) for pid in done.stdout.split()]
    assert workers, done.stderr
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            return
        time.sleep(0.1)
    raise AssertionError(f"still alive: {workers}")
