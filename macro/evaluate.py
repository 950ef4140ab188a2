"""Measures a model on a benchmark.

    python -m macro.evaluate --config=configs/demo.py --bench=scenes --num=200 --seed=0
    --workdir=runs/evaluate

Prints a table and writes evaluation.json and evaluation.html (with images) to the workdir. A killed run
goes on where it was when it is started again with the same flags. --plans=truth hands the true plans in,
which tells what the planner costs from what the drawing does. What is measured: `macro/evals/benches/scenes.py`.
"""

import os
from pathlib import Path

from macro.utils.config import run
from macro.utils.errors import UserError


def _scenes(*arguments):
    from macro.evals.benches.scenes import evaluate

    return evaluate(*arguments)


BENCHES = {"scenes": _scenes}
PLANS = ("own", "truth")
HELPS = {
    "bench": f"which benchmark: {', '.join(BENCHES)}",
    "num": "samples for each bucket of reference counts",
    "seed": "of the benchmark's samples; the same seed gives the same ones",
    "json": "file for the results, beside the workdir's evaluation.json",
    "weights": "a .safetensors file or the name of a shipped model; config.demo.weights if left out",
    "plans": "own: the model plans; truth: it is given the true plans",
    "swaps": "samples per bucket that are drawn again with two subjects' cells exchanged",
}


def main(config, workdir, bench="scenes", num=200, seed=0, json=None, weights=None, plans="own", swaps=50):
    _check(bench, num, seed, json, plans, swaps)

    # Imported here: a mistake in the flags is named before JAX starts.
    import platform
    import shlex
    import sys

    import jax

    from macro.evals import report
    from macro.sampling.load import load
    from macro.sampling.options import read_options
    from macro.training.data import data_config
    from macro.utils.tree import sha256

    data, options = data_config(config)
    if data.name != "scenes":
        raise UserError(f"--bench=scenes: config.data.name is {data.name!r}; take a config whose data are scenes")
    if not read_options(config.get("sampling", {})).use_planner:
        raise UserError("--bench=scenes: measures images by their plans, but config.sampling draws without one")
    pipeline = load(weights or config.get("demo", {}).get("weights", "demo"), config)
    settings = {
        "bench": bench,
        "weights_sha256": sha256(pipeline.params),
        "sampling": repr(pipeline.options),
    }
    results, strips = BENCHES[bench](pipeline, workdir, num, seed, plans, swaps, settings, options)
    results["settings"] |= {
        "command": shlex.join(["python", "-m", "macro.evaluate", *sys.argv[1:]]),
        "machine": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}",
        "jax": jax.__version__,
    }
    report.write(workdir, results, strips, json)
    print(report.table(results))


def _check(bench: str, num: int, seed: int, json: str | None, plans: str, swaps: int) -> None:
    if bench not in BENCHES:
        raise UserError(f"--bench={bench}: there is no such benchmark; there is {', '.join(BENCHES)}")
    if num < 1:
        raise UserError(f"--num={num}: must be at least 1, the number of samples per bucket")
    if seed < 0 or swaps < 0:
        raise UserError("--seed and --swaps must be 0 or more")
    if plans not in PLANS:
        raise UserError(f"--plans={plans}: use {' or '.join(PLANS)}")
    if json is not None and (Path(json).is_dir() or not os.access(_standing(Path(json)), os.W_OK)):
        raise UserError(f"--json={json}: cannot be written; name a file in a folder that can be")


def _standing(file: Path) -> Path:
    """The nearest folder above a file that is there."""
    return next(folder for folder in file.absolute().parents if folder.is_dir())


if __name__ == "__main__":
    run(main, **HELPS)
