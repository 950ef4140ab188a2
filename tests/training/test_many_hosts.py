"""Training in several real processes: nothing is lost, seen twice or computed differently.

Command line, loop and pipeline are the real ones. The pipeline's rows become those of the linear regression of
`stand_in.py` by the numbers of the examples in them, so that a step takes milliseconds.
"""

import json
import signal

import numpy as np
import pytest
from parallel.processes import ROOT, finish, free_port, start, until

from macro.models.checkpoints import weights

pytestmark = pytest.mark.slow

SAMPLES, WINDOW, ROWS = 48, 24, 4
CONFIG = f"{ROOT / 'configs' / 'tiny.py'}:smoke"

PROGRAM = f"""
import json, os, time
from pathlib import Path

import numpy as np

from macro import train
from macro.parallel import multihost
from macro.utils.config import load, run


def main(workdir, save_every_steps=4, batch_size={ROWS}, pause=0.0, coordinator="", process=-1, processes=0):
    from macro.inputs.loader import DataLoader
    from macro.objectives import OBJECTIVES
    from macro.parallel.mesh import my_rows
    from macro.sentence.spans import Sentence, Target, Text
    from macro.training import data
    from training import stand_in

    class Numbers(DataLoader):
        def __next__(self):
            time.sleep(pause)
            state = self.get_state()
            batch = super().__next__()
            examples = batch["examples"]
            rows = dict(zip(self._mine, examples.tolist(), strict=True))
            with (Path(workdir) / f"served.{{os.getpid()}}").open("a") as file:
                file.write(json.dumps({{"from": state["examples_seen"], "rows": rows}}) + "\\n")
            x = np.stack([[np.random.default_rng(max(i, 0)).normal(size=8) for i in row] for row in examples])
            held = np.where(examples >= 0, 0, -1)
            text = {{"x": np.float32(x), "y": np.float32(x @ np.arange(1, 9) + 0.5), "segment_ids": np.int32(held)}}
            return {{"text": text, "examples": examples}}

    def stored(config):
        lengths = np.random.default_rng(0).integers(20, 90, {SAMPLES})
        target = Target(np.zeros((32, 32, 3), np.uint8))
        return [Sentence((Text("w" * int(n)), target), "compose", i) for i, n in enumerate(lengths)]

    def batches(config, source, tokenizer, packing, mesh):
        rows = my_rows(config.batch_size, mesh)
        return Numbers(source, tokenizer, packing, config.seed, config.batch_size, rows, workers=0)

    stand_in.FEATURES = 8  # divides over the devices
    OBJECTIVES["autoencoder"], data.stored, data.batches = stand_in.Objective, stored, batches
    config = load({CONFIG!r})
    config.update(stand_in.get_config(12, objective="autoencoder").to_dict())
    config.update({{"save_every_steps": save_every_steps, "batch_size": batch_size}})
    config.packing.update({{"text": 140, "vision": 0, "latent": 16, "noise_draws": 1, "window": {WINDOW}}})
    config.packing.buckets = ((32, 32, 4),)
    return train.main(config, workdir, coordinator, process, processes)


helps = {{"save_every_steps": "steps", "batch_size": "rows", "pause": "before a batch, seconds"}}
run(main, **helps, **multihost.HELPS)
"""


def commands(workdir, processes, **flags):
    where = f"--coordinator=localhost:{free_port()}"
    flags = [f"--workdir={workdir}", *(f"--{name}={value}" for name, value in flags.items())]
    for number in range(processes):
        among = [where, f"--process={number}", f"--processes={processes}"] if processes > 1 else []
        yield ["-c", PROGRAM, *flags, *among]


def train(workdir, processes, **flags):
    """Runs it to its end on four devices, shared out to the processes; returns what they left."""
    left = finish(list(commands(workdir, processes, **flags)), devices=4 // processes)
    assert [process.code for process in left] == [0] * processes, left[0].err + left[-1].err
    return left


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def checkpoints(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def served(workdir):
    """{samples seen before a batch: {row of the batch: its examples}}; every process's account must agree."""
    batches = {}
    for path in workdir.glob("served.*"):
        for line in path.read_text().splitlines():
            part = json.loads(line)
            batch = batches.setdefault(part["from"], {})
            for row, examples in part["rows"].items():
                assert batch.setdefault(int(row), examples) == examples
    return batches


def in_order(batches):
    """All examples of the batches in the order of the stream, checked: no row is missing."""
    found = []
    for begin in sorted(batches):
        assert begin == len(found), "a batch is missing"
        assert sorted(batches[begin]) == list(range(ROWS))
        found += [i for _, examples in sorted(batches[begin].items()) for i in examples if i >= 0]
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    train(workdir, 1)
    return workdir


def assert_each_once_an_epoch(seen):
    for first in range(0, len(seen), SAMPLES):
        epoch = seen[first : first + SAMPLES]
        assert len(set(epoch)) == len(epoch)


def assert_close(records, others, names=("loss", "grad_norm", "examples_seen", "fill/text")):
    assert [r["step"] for r in records] == [r["step"] for r in others]
    for name in names:
        np.testing.assert_allclose([r[name] for r in records], [r[name] for r in others], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("processes", [2, 4])
def test_every_example_once_and_the_same_losses(tmp_path, alone, processes):
    train(tmp_path, processes)
    assert len(list(tmp_path.glob("served.*"))) == processes
    parts = served(tmp_path)
    assert parts == served(alone)
    seen = in_order(parts)
    assert len(seen) == records(tmp_path)[-1]["examples_seen"] > 2 * SAMPLES
    assert_each_once_an_epoch(seen)
    assert_close(records(tmp_path), records(alone))


def test_another_number_of_processes_goes_on(tmp_path, alone):
    """4 processes, one of which gets SIGTERM; then 2, killed without warning; then 1, which is left to finish."""
    with start(list(commands(tmp_path, 4, pause=0.2))) as running:
        until(lambda: len(served(tmp_path)) >= 3)
        running[2].popen.send_signal(signal.SIGTERM)
        left = [process.finish(60) for process in running]
    assert [process.code for process in left] == [143] * 4
    assert ["stopped by SIGTERM" in process.out for process in left] == [True, False, False, False]
    done = records(tmp_path)[-1]["step"]
    assert 3 <= done < 12
    assert checkpoints(tmp_path)[-1] == done

    with start(list(commands(tmp_path, 2, pause=0.2, save_every_steps=1)), devices=2):
        until(lambda: checkpoints(tmp_path)[-1] > done)
    again = checkpoints(tmp_path)[-1]
    before = set(tmp_path.glob("served.*"))
    assert len(before) == 4 + 2

    train(tmp_path, 1)
    [last] = set(tmp_path.glob("served.*")) - before
    assert len(last.read_text().splitlines()) == 12 - again
    assert served(tmp_path) == served(alone)
    assert_close(records(tmp_path), records(alone))


def test_the_command_line_writes_everything_once(tmp_path, alone):
    left = train(tmp_path, 2)
    files = {"config.json", "metrics.jsonl", "checkpoints", "model.safetensors"}
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("served")} == files
    (params, _, notes), (others, _, _) = (weights.load(path / "model.safetensors") for path in (tmp_path, alone))
    np.testing.assert_allclose(params["line"]["kernel"], others["line"]["kernel"], rtol=1e-5)
    assert notes["examples_seen"] == records(tmp_path)[-1]["examples_seen"]
    for words in ("step 12/12", f"wrote {tmp_path}"):
        assert [words in process.out for process in left] == [True, False]


def test_a_mistake_is_one_line_in_every_process(tmp_path):
    left = finish(list(commands(tmp_path, 2, batch_size=3)))
    assert [process.code for process in left] == [2, 2]
    assert all("error: config.batch_size=3 does not divide over 2 devices" in process.err for process in left)
    assert list(tmp_path.iterdir()) == []
