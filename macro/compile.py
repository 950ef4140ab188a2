"""Says before a TPU is booked whether a config fits it, how it is divided, and how long a step takes at least.

    python -m macro.compile --config=configs/macro_bagel_7b.py --topology=v5p:4x4x4 --config.batch_size=64
    python -m macro.compile --config=configs/macro_bagel_7b.py --topology=v5e:2x4 --program=sample --references=0,5,10 \
        --config.parallel.preset=fsdp+tensor+sequence --config.parallel.tensor=4 --config.parallel.sequence=2

Compiles the real programs, the training step or (--program=sample) prefill and drawing by number of references, for
devices that are not here: the libtpu wheel does that on any Linux machine, in minutes for seven billion parameters.
Bytes are of one device, against what its HBM lets a program use. FLOPs, HBM traffic and bytes over the links are read
off the compiled program, loops multiplied out; attention kernels count all pairs of a row's tokens, also those that no
token sees and a kernel skips. The time is a roofline: the longest of arithmetic, memory and interconnect, each at its
peak. Exit code 1 where it does not fit, with the largest allocations. --json prints one object instead of the table.
What it runs: `macro/training/forecast.py`, `macro/sampling/forecast.py`.
"""

import json as json_lib

from macro.utils.config import run
from macro.utils.errors import UserError

PROGRAMS = ("train", "sample")
HELPS = {
    "topology": "chip and shape of a slice, such as v5e:16x16, v5p:4x4x4, v6e:8x8",
    "slices": "how many such slices",
    "program": "train: the training step; sample: prefill and drawing, with config.packing.buckets[0] as the size",
    "references": "for sample: numbers of references, separated by commas",
    "json": "print one JSON object, no table",
}
_EVERY = ",".join(map(str, range(13)))


def main(config, topology, slices=1, program="train", references=_EVERY, json=False):
    if program not in PROGRAMS:
        raise UserError(f"--program={program}: choose one of {', '.join(PROGRAMS)}")
    if slices < 1:
        raise UserError(f"--slices={slices}: must be at least 1")
    counts = _counts(references)

    # Imported here: a mistake on the command line is named before JAX starts.
    from macro.objectives import OBJECTIVES
    from macro.objectives.parts import model_config
    from macro.parallel import chips
    from macro.parallel import topology as topologies
    from macro.parallel.mesh import make_mesh, parallel_config
    from macro.sampling import forecast as drawing
    from macro.training import forecast as training
    from macro.utils.config import choose

    chip = chips.chip(topology)
    mesh = make_mesh(parallel_config(config), topologies.devices(topology, slices))
    if program == "train":
        objective = OBJECTIVES[choose(config, "objective", OBJECTIVES)]
        found = training.forecast(objective, config, mesh, chip)
        record, fits = training.record(found, mesh), found.fit.fits
        shown = training.table(found, mesh, topology)
    else:
        found = drawing.forecast(config, model_config(config), mesh, chip, counts)
        record, fits = drawing.record(found), all(row.fits for row in found.rows)
        shown = drawing.table(found, topology)
    print(json_lib.dumps(record) if json else shown)
    return 0 if fits else 1


def _counts(references: str) -> list[int]:
    try:
        counts = [int(part) for part in references.split(",")]
    except ValueError:
        raise UserError(f"--references={references}: write numbers with commas between, such as 0,5,10") from None
    if not all(0 <= count <= 12 for count in counts):
        raise UserError(f"--references={references}: a sentence has 0 to 12 references")
    return counts


if __name__ == "__main__":
    run(main, **HELPS)
