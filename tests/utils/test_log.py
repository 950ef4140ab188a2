"""The metrics file across a resumption, means, and the progress line."""

import json

import pytest

from macro.utils import log as log_lib
from macro.utils.log import MeanMetrics, MetricsLog, Progress, ProgressBar, clock


def write(workdir, resumed_step, steps):
    log = MetricsLog(str(workdir), resumed_step)
    for step in steps:
        log.write({"step": step, "loss": 1.0 / step})
    log.close()


def steps_in(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_drops_what_it_will_do_again(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4, 5])
    write(tmp_path, 3, [4, 5, 6])
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_new_run_starts_an_empty_file(tmp_path):
    write(tmp_path, 0, [1, 2])
    write(tmp_path, 0, [1])
    assert steps_in(tmp_path) == [1]


def test_a_line_cut_short_is_dropped(tmp_path):
    write(tmp_path, 0, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    write(tmp_path, 3, [4])
    assert steps_in(tmp_path) == [1, 2, 4]


def test_numbers_that_json_lacks_are_left_out(tmp_path):
    log = MetricsLog(str(tmp_path), 0)
    log.write({"step": 1, "rate": float("nan"), "far": float("inf"), "note": "text"})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "note": "text"}


def test_means_skip_nan_and_start_anew():
    means = MeanMetrics()
    means.add({"loss": 1.0, "draw/edit": float("nan")})
    means.add({"loss": 3.0, "draw/edit": 5.0})
    assert means.take() == {"loss": 2.0, "draw/edit": 5.0}
    assert means.take() == {}


def test_progress_shows_share_and_time_left(monkeypatch, capsys):
    now = iter([0.0, 10.0, 35.0])
    monkeypatch.setattr("macro.utils.log.time.monotonic", lambda: next(now))
    progress = Progress(0, 100)
    progress.tick(1)  # at 10 s; compiling is over
    progress.skip(5.0)  # an evaluation
    progress.show(41, {"loss": 0.51234})  # at 35 s: 40 steps in 20 s, 59 are left
    assert capsys.readouterr().out == "step 41/100 (41%) | loss 0.5123 | 2.00 steps/s | ETA 0:30\n"


def test_clock():
    assert [clock(s) for s in (5.2, 65.0, 3723.4)] == ["0:05", "1:05", "1:02:03"]


def test_countdown_counts_what_was_there_but_not_in_its_rate(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(log_lib.time, "monotonic", lambda: now[0])
    countdown = ProgressBar("set", 1000, "places")
    countdown.skip(500)
    for seconds, number in ((2.0, 100), (0.5, 100), (2.5, 200), (0.1, 100)):
        now[0] += seconds
        countdown.done(number)
    assert capsys.readouterr().err.splitlines() == [
        "set: 600 of 1,000 places, 50 a second, 0:08 left",
        "set: 900 of 1,000 places, 80 a second, 0:01 left",  # the second came too soon after the first
        "set: 1,000 of 1,000 places, 98 a second, 0:00 left",
    ]
    assert countdown.made == 500 and countdown.seconds() == pytest.approx(5.1)
