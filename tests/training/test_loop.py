"""The loop: it learns, logs, stops, goes on; however it is interrupted it ends with the same parameters."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from training.stand_in import Data, Objective, get_config

from macro.training import loop
from macro.utils.errors import UserError


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def train(workdir, data=None, hooks=(), **changes):
    return loop.run(Objective, get_config(**changes), data or Data(), str(workdir), hooks)


class Killed(BaseException):
    """Stands for SIGKILL in this process: nothing in the loop may catch it."""


class Dies(Data):
    """Data that ends the run when batch number `at` is asked for."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def __next__(self):
        if self.left == 0:
            raise Killed
        self.left -= 1
        return super().__next__()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    train(workdir)
    return records(workdir)


def test_records(unbroken):
    assert [r["step"] for r in unbroken] == list(range(1, 13))
    assert [r["examples_seen"] for r in unbroken] == [6 * step for step in range(1, 13)]
    assert {"loss", "draw", "lr", "grad_norm", "fill/text", "seconds", "data_seconds"} <= unbroken[-1].keys()
    assert "draw/edit" not in unbroken[0]  # NaN: the batch had none of it
    assert [i for i, r in enumerate(unbroken) if "params_sha256" in r] == [11]


def test_it_learns(tmp_path):
    optim = {"lr": 0.3, "warmup_steps": 10, "weight_decay": 0.0, "grad_clip_norm": 100.0}
    train(tmp_path, total_steps=200, save_every_steps=0, log_every_steps=50, optim=optim)
    found = [r["loss"] for r in records(tmp_path)]
    assert found[0] > 1.0 > 0.1 > found[-1]


@pytest.mark.parametrize("at", [0, 3, 5, 11])
def test_killed_and_started_again_ends_the_same(tmp_path, unbroken, at):
    with pytest.raises(Killed):
        train(tmp_path, Dies(at))
    data = Data()
    train(tmp_path, data)
    again = records(tmp_path)
    assert [r["step"] for r in again] == list(range(1, 13))
    assert again[-1]["params_sha256"] == unbroken[-1]["params_sha256"]
    assert again[-1]["examples_seen"] == unbroken[-1]["examples_seen"]
    assert [r["loss"] for r in again] == [r["loss"] for r in unbroken]
    # It went on at the last checkpoint (every 4 steps of 6 examples), not at the start.
    assert len(data.served) == 6 * (12 - at // 4 * 4)


def test_a_finished_run_has_nothing_left_to_do(tmp_path, unbroken):
    train(tmp_path)
    before, data = (tmp_path / "metrics.jsonl").read_text(), Data()
    state = train(tmp_path, data)
    assert int(state.step) == 12
    assert data.served == []
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_sigterm_saves_and_leaves(tmp_path, unbroken):
    class Terminated(Data):
        def __next__(self):
            if len(self.served) == 6 * 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__next__()

    handler = signal.getsignal(signal.SIGTERM)
    assert train(tmp_path, Terminated(), save_every_steps=0) is None
    assert signal.getsignal(signal.SIGTERM) is handler
    assert [r["step"] for r in records(tmp_path)] == list(range(1, 7))
    data = Data()
    train(tmp_path, data, save_every_steps=0)
    assert len(data.served) == 6 * 6
    assert records(tmp_path)[-1]["params_sha256"] == unbroken[-1]["params_sha256"]


def test_a_step_that_is_not_finite_is_skipped_counted_and_named(tmp_path, capsys):
    # Example 41 lies in row 10: window 1, row 2, batch 5.
    state = train(tmp_path, Data(broken_at=41), save_every_steps=6)
    assert "step 6: loss nan" in (out := capsys.readouterr().out) and "window 1, row 2; examples 40, 41," in out
    found = records(tmp_path)
    assert [r["step"] for r in found] == list(range(1, 13))
    assert [r["bad_steps"] for r in found] == [0] * 5 + [1] * 7
    assert "loss" not in found[5] and all(np.isfinite(r["loss"]) for r in found[:5] + found[6:])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    # Nothing but the counts changed in it.
    steady = {"optim": {"schedule": "constant"}}
    before, after = (train(tmp_path / f"to_{n}", Data(broken_at=41), total_steps=n, **steady) for n in (5, 6))
    assert (int(before.step), int(after.step), int(after.examples)) == (5, 6, 36)
    same = jax.tree.map(np.array_equal, (before.params, before.opt_state), (after.params, after.opt_state))
    assert all(jax.tree.leaves(same))


def test_so_many_in_a_row_stop_the_run(tmp_path):
    config = {"max_bad_steps": 2, "save_every_steps": 3}
    for _ in range(2):  # from the checkpoint on it stops again: it does not train on nothing
        with pytest.raises(loop.NonFiniteLoss, match=r"step [78]: loss nan.*the last 2 were so \(config\.max"):
            train(tmp_path, Broken(), **config)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["3", "6"]


class Broken(Data):
    """Nothing but NaN from the sixth batch on."""

    def __next__(self):
        row = self.state["window"] * 8 + self.state["row"]
        self.broken_at = 4 * row if row >= 10 else None
        return super().__next__()


def test_evaluations_come_before_saves_and_at_the_end(tmp_path):
    calls = []

    def hook(state, step):
        assert int(state.step) == step
        calls.append(
            (step, sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()))
        )

    train(tmp_path, hooks=[hook], eval_every_steps=5, save_every_steps=5, checkpoint={"keep_latest": 9})
    assert [step for step, _ in calls] == [5, 10, 12]
    assert all(step not in saved for step, saved in calls)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["10", "12", "5"]


def test_records_are_means_over_the_steps_between(tmp_path, unbroken):
    train(tmp_path, log_every_steps=5)
    found = records(tmp_path)
    assert [r["step"] for r in found] == [5, 10, 12]
    assert np.isclose(found[1]["loss"], np.mean([r["loss"] for r in unbroken[5:10]]))
    assert found[1]["lr"] == unbroken[9]["lr"]


def test_another_model_in_the_workdir_is_refused(tmp_path):
    train(tmp_path, total_steps=2)

    class Other(Objective):
        @staticmethod
        def init(key, config):
            params = Objective.init(key, config)
            return params | {"line": params["line"] | {"bias": np.zeros(2, np.float32)}}

    with pytest.raises(UserError, match=r"ema/line/bias has shape \(1,\), but the config asks for \(2,\)"):
        loop.run(Other, get_config(), Data(), str(tmp_path))


PROGRAM = """
import sys
from macro.training import loop
from training.stand_in import Data, Objective, get_config
loop.run(Objective, get_config(total_steps=400, save_every_steps=7), Data(), sys.argv[1])
"""


def start(workdir):
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), str(root / "tests")])
    workdir.mkdir(exist_ok=True)
    with (workdir / "output").open("a") as output:
        command = [sys.executable, "-c", PROGRAM, str(workdir)]
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=output, stderr=output)


@pytest.mark.slow
def test_sigkill_at_any_moment(tmp_path):
    """A real process is killed without warning, five times a little later, then left to finish."""
    assert start(tmp_path / "whole").wait() == 0
    for i in range(0, 10, 2):
        process = start(tmp_path / "killed")
        lines = tmp_path / "killed" / "metrics.jsonl"
        while process.poll() is None and (not lines.exists() or lines.read_text().count("\n") < 30 * i):
            time.sleep(0.01)
        time.sleep(0.03 * i)
        process.kill()
        process.wait()
    assert start(tmp_path / "killed").wait() == 0
    whole, killed = records(tmp_path / "whole"), records(tmp_path / "killed")
    assert [r["step"] for r in killed] == list(range(1, 401))
    assert killed[-1]["params_sha256"] == whole[-1]["params_sha256"]
    assert [r["examples_seen"] for r in killed] == [r["examples_seen"] for r in whole]
