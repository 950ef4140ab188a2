"""Kills a training run at random moments and asks whether it ends as the one that nothing ever happened to.

    python experiments/003_exact_resume/run.py --workdir=runs/exact [--runs=20] [--aimed=4] [--terminated=4] [--seed=0]

A run is `python -m macro.train` on configs/tiny.py:smoke, 24 steps, a checkpoint every 4, its data read by a worker
process. First two runs are left alone: the first makes the data and fills JAX's cache of compiled programs, the second
one's time is what the moments are drawn from, evenly from the start of its process to the end. Then `runs` are killed
with SIGKILL, every fourth of them twice, `aimed` while a checkpoint is being written, and `terminated` get SIGTERM;
each is started again until it is done. Compared with the run left alone are the hash of the parameters, the record of
the last checkpoint (the place in the data, sums of all arrays: optimizer and averages too), the weights that are
written at the end, loss and count of every step, and which examples the steps were given. That no process outlives a
kill is looked at too.

Exit code 1 if anything differs. Writes `results.json` to the workdir.
"""

import dataclasses
import hashlib
import json
import os
import platform
import random
import runpy
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS, SAVE_EVERY = 24, 4
SAMPLES = 64  # of the data set that :smoke makes; about half as many steps are an epoch
SETTINGS = {
    "total_steps": STEPS,
    "save_every_steps": SAVE_EVERY,
    "log_every_steps": 1,
    "packing.window": 16,
}
MARK = "EXACT_RESUME_RUN"  # in the environment of a run and of all its children


def main(workdir, runs: int = 20, aimed: int = 4, terminated: int = 4, seed: int = 0) -> int:
    folder, rng = Path(workdir).absolute(), random.Random(seed)
    for name in ("warm", "unbroken"):
        began = time.monotonic()
        launch = Launch(folder / name, folder / "data")
        if launch.wait():
            print(f"{name}: left with {launch.process.returncode}; see {folder / name / 'output'}")
            return 1
        wall = time.monotonic() - began
    wanted = ending(folder / "unbroken")
    print(f"unbroken: {wall:.1f} s, params {wanted['params_sha256'][:12]}", flush=True)
    results = {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "steps": STEPS,
        "save_every_steps": SAVE_EVERY,
        "seed": seed,
        "unbroken": {"seconds": round(wall, 2), "params_sha256": wanted["params_sha256"]},
        "two_unbroken_runs_agree": ending(folder / "warm") == wanted,
        "every_example_once_an_epoch": once_an_epoch(wanted["examples"]),
        "runs": [],
    }
    saves = STEPS // SAVE_EVERY
    plan = [
        (signal.SIGKILL, runs, lambda i: [rng.uniform(0, wall) for _ in range(2 if i % 4 == 3 else 1)]),
        (signal.SIGKILL, aimed, lambda _: [InSave(rng.randint(1, saves), rng.uniform(0, 0.05))]),
        (signal.SIGTERM, terminated, lambda _: [rng.uniform(0, wall)]),
    ]
    for how, count, draw in plan:
        done = 0
        while done < count:
            number = len(results["runs"])
            found = broken_run(folder / f"{number:02}", folder / "data", how, draw(done))
            done += bool(found["stops"])  # On a machine that others use, a run may be over before its moment.
            end = found.pop("ending")
            found["differs"] = sorted(key for key in wanted if end.get(key) != wanted[key])
            results["runs"].append(found)
            (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
            print(number, json.dumps(found), flush=True)
    bad = [run for run in results["runs"] if run["differs"] or run["outlived_by"]]
    stops = [stop for run in results["runs"] for stop in run["stops"]]
    print(f"{len(stops)} stops in {len(results['runs'])} runs; {len(bad)} runs differ or left processes behind")
    return 0 if results["two_unbroken_runs_agree"] and results["every_example_once_an_epoch"] and not bad else 1


@dataclasses.dataclass(frozen=True)
class InSave:
    """The moment when the `number`-th checkpoint has been in the writing for `seconds`."""

    number: int
    seconds: float


class Launch:
    """One process that trains in `folder`, and whatever it starts."""

    def __init__(self, folder: Path, data: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.mark = uuid.uuid4().hex
        command = [sys.executable, __file__, "train", f"--workdir={folder}", f"--config.data.dir={data}"]
        command += [f"--config.{key}={value}" for key, value in SETTINGS.items()]
        cache = str(data.with_name("cache"))  # of compiled programs
        environment = os.environ | {MARK: self.mark, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
        with (folder / "output").open("a") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, or None if it is not done after `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_for(self, moment: float | InSave, folder: Path) -> int | None:
        """The exit code, or None if the moment (seconds, or in a save) comes before the end."""
        if not isinstance(moment, InSave):
            return self.wait(moment)
        seen = set()
        while len(seen) < moment.number:
            if self.process.poll() is not None:
                return self.process.returncode
            seen |= {name for name in _saved(folder) if not name.isdigit()}
            time.sleep(0.001)
        return self.wait(moment.seconds)

    def left(self, patience: float = 5.0) -> list[int]:
        """Processes of this launch that are still there after its end, and go on being there."""
        for _ in range(int(patience / 0.1)):
            alive = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _has(path, f"{MARK}={self.mark}")]
            if not alive:
                break
            time.sleep(0.1)
        return alive


def broken_run(folder: Path, data: Path, how: signal.Signals, moments: list[float | InSave]) -> dict:
    """A run that is stopped at each of these moments of one process after the other, then left to finish."""
    stops, launches, outlived_by = [], 0, 0
    while True:
        began, launch, launches = time.monotonic(), Launch(folder, data), launches + 1
        code = launch.wait_for(moments[launches - 1], folder) if launches <= len(moments) else launch.wait()
        if code is None:
            launch.process.send_signal(how)
            sent = time.monotonic()
            stop = {"seconds": round(sent - began, 2), "step": _step(folder), "saved": _saved(folder)}
            code = launch.wait()
            stop |= {"code": code, "seconds_to_leave": round(time.monotonic() - sent, 2), "saved_then": _saved(folder)}
            stops.append(stop)
        outlived_by += len(launch.left())
        if code == 0 and launches > len(stops):
            break
        if code not in (0, 128 + signal.SIGTERM, -how) or launches > len(moments) + 1:
            raise RuntimeError(f"{folder}: left with {code}; see {folder / 'output'}")
    run = {"signal": how.name, "stops": stops, "launches": launches, "outlived_by": outlived_by}
    end = ending(folder)
    return run | {"params_sha256": end["params_sha256"], "ending": end}


def ending(folder: Path) -> dict:
    """All that a finished run is compared by."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights = (folder / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(weights[:8], "little")  # names the command, which says the workdir
    checkpoint = json.loads((folder / "checkpoints" / str(STEPS) / "data" / "metadata").read_text())
    for key in ("score", "crc32"):  # The score is a mean since the save before, and SIGTERM saves too.
        del checkpoint[key]
    return {
        "params_sha256": records[-1].get("params_sha256"),
        "weights_sha256": hashlib.sha256(weights[header:]).hexdigest(),
        "checkpoint": checkpoint,
        "steps": [record["step"] for record in records],
        "losses": [record["loss"] for record in records],
        "examples_seen": [record["examples_seen"] for record in records],
        "examples": trained_on(folder / "served.jsonl"),
    }


def trained_on(path: Path) -> list[list[int]]:
    """The examples of every step that counted, read off what each process's iterator gave out.

    A process that goes on from a checkpoint starts at the place that was saved there; what the one before gave out from
    that place on was lost with it, and is done again.
    """
    counted = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):  # a kill cut it short: its batch was never trained on
            continue
        served = json.loads(line)
        if served["first"]:
            places = [place for place, _ in counted]
            if served["place"] in places:
                del counted[places.index(served["place"]) :]
        counted.append((served["place"], served["examples"]))
    return [examples for _, examples in counted]


def once_an_epoch(steps: list[list[int]]) -> bool:
    """Whether every epoch holds each example once; the last one, which may be cut short, none twice."""
    flat = [i for examples in steps for i in examples]
    epochs = [flat[i : i + SAMPLES] for i in range(0, len(flat), SAMPLES)]
    return len(epochs) > 1 and all(len(set(epoch)) == len(epoch) for epoch in epochs) and max(flat) < SAMPLES


def train(arguments: list[str]) -> None:
    """`python -m macro.train` with an iterator that writes down what it gives out."""
    from macro.training import data

    workdir = next(argument for argument in arguments if argument.startswith("--workdir=")).split("=", 1)[1]
    batches = data.batches
    data.batches = lambda *given: _Noted(batches(*given), Path(workdir) / "served.jsonl")
    sys.argv = ["train", f"--config={ROOT / 'configs' / 'tiny.py'}:smoke", *arguments]
    runpy.run_module("macro.train", run_name="__main__", alter_sys=True)


class _Noted:
    """The iterator, and one line in `path` for every batch before it is given out."""

    def __init__(self, inner, path: Path):
        self._inner, self._first = inner, True
        if path.exists():  # A line that a kill cut short must not swallow the next.
            whole = path.read_text().rpartition("\n")
            path.write_text(whole[0] + whole[1])
        self._file = path.open("a")
        self.get_state, self.set_state = inner.get_state, inner.set_state

    def __next__(self):
        place = self._inner.get_state()
        batch = next(self._inner)
        examples = [int(i) for i in batch["examples"].reshape(-1) if i >= 0]
        self._file.write(json.dumps({"first": self._first, "place": place, "examples": examples}) + "\n")
        self._file.flush()
        self._first = False
        return batch


def _step(folder: Path) -> int:
    """Steps that were logged."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def _saved(folder: Path) -> list[str]:
    """Names in the folder of checkpoints; one that is being written has a longer name than its step."""
    path = folder / "checkpoints"
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []


def _has(process: Path, setting: str) -> bool:
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and setting.encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # gone meanwhile, or somebody else's
        return False


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2:])
    else:
        from macro.utils.config import run

        run(
            main,
            runs="runs killed with SIGKILL at any moment",
            aimed="runs killed while a checkpoint is written",
            terminated="runs ended with SIGTERM",
            seed="of the moments",
        )
