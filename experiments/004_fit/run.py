"""Which recipes fit which TPU slices, by `macro.compile`: writes results.json and table.md beside this file.

    python experiments/004_fit/run.py            every cell that results.json does not have yet, minutes each

The VAE of a recipe is compiled for one size of image, as many of it as all its buckets have pixels: with its thirteen
sizes a step takes four times as long to compile and neither memory nor arithmetic are others.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
CHIPS = {"v5e:16x16": 256, "v5p:4x4x4": 64, "v6e:16x16": 256, "v5p:2x2x1": 4, "v5e:4x4": 16, "v6e:4x4": 16}
CHIPS |= {"v6e:2x4": 8, "v6e:2x2": 4, "v5e:8x16": 128, "v5e:2x4": 8, "v5e:2x2": 4, "v6e:1x1": 1, "v5p:1x1x1": 1}
# Images of 1024 x 1024 with the pixels of all slots of the config's buckets.
RECIPES = {"inset": ("inset_bagel_7b", 15), "macro": ("macro_bagel_7b", 42), "music": ("music_7b", 0)}
ASKED = [(recipe, slice_) for slice_ in ("v5e:16x16", "v5p:4x4x4", "v6e:16x16") for recipe in RECIPES]
# Smallest slices: parameters and optimizer state shrink with the devices, the rest does not.
SMALLEST = [
    ("macro", "v5p:2x2x1"), ("macro", "v6e:4x4"), ("macro", "v5e:8x16"), ("music", "v5e:2x4"), ("music", "v6e:2x2"),
    ("inset", "v5p:2x2x1"), ("inset", "v6e:4x4"), ("music", "v5p:2x2x1"), ("music", "v5e:4x4"),
]  # fmt: skip
DRAWING = ("macro_bagel_7b", "v5e:2x4", "0,2,5,10")


def main():
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    draw(results)
    for recipe, slice_ in [*ASKED, *SMALLEST]:
        config, images = RECIPES[recipe]
        flags = [f"--config=configs/{config}.py", f"--topology={slice_}", f"--config.batch_size={CHIPS[slice_]}"]
        if images:
            flags.append(f"--config.packing.buckets=((1024,1024,{images}),)")
        run(results, f"{recipe} {slice_}", flags)
    (HERE / "table.md").write_text(table(results))


def draw(results: dict) -> None:
    """The cell of drawing by number of references."""
    config, slice_, references = DRAWING
    flags = [f"--config=configs/{config}.py", f"--topology={slice_}", "--program=sample", f"--references={references}"]
    flags += ["--config.parallel.preset=fsdp+tensor+sequence", "--config.parallel.tensor=4"]
    run(results, f"draw {slice_}", [*flags, "--config.parallel.sequence=2"])


def run(results: dict, name: str, flags: list[str]) -> None:
    """One cell, kept as soon as it is there."""
    if name in results:
        return
    command = ["python", "-m", "macro.compile", *flags, "--json"]
    print("+", " ".join(command), flush=True)
    start = time.monotonic()
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{name}: {done.stderr[-2000:]}")
    record = json.loads(done.stdout.splitlines()[-1])
    results[name] = record | {"command": " ".join(command), "compile_seconds": round(time.monotonic() - start)}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def table(results: dict) -> str:
    """Markdown of all cells but the drawing's."""
    head = "| recipe | slice | fits | memory, GiB | of | given | step, s | bound by | tokens/s |\n"
    lines = [head + "|---|---|---|---|---|---|---|---|---|\n"]
    for name, found in results.items():
        recipe, slice_ = name.split()
        if recipe == "draw":
            continue
        memory = f"{found['peak_bytes'] / 2**30:.1f} | {found['hbm_bytes'] / 2**30:.1f}"
        if found["fits"]:
            rate = found["tokens"] / found["step_seconds_roofline"]
            given = f"{found['argument_bytes'] / 2**30:.1f}"
            times = f"{found['step_seconds_roofline']:.1f} | {found['bound_by']} | {rate:,.0f}"
            lines.append(f"| {recipe} | {slice_} | yes | {memory} | {given} | {times} |\n")
        else:
            lines.append(f"| {recipe} | {slice_} | no | {memory} | | | {' '.join(found['culprits'][:1])} | |\n")
    return "".join(lines)


if __name__ == "__main__":
    main()
