"""Says before a TPU is booked whether a config fits it, how it is sharded, and the least time a step takes.

    python -m macro.compile --config=configs/macro_bagel_7b.py --topology=v5p:4x4x4 --config.batch_size=64
    python -m macro.compile --config=configs/macro_bagel_7b.py --topology=v5e:2x4 --program=sample --references=0,5,10 \
        --config.parallel.preset=fsdp+tensor+sequence --config.parallel.tensor=4 --config.parallel.sequence=2

Compiles the real programs ahead of time: the training step or (--program=sample) prefill and denoising by number of
references. The libtpu wheel does that on any Linux machine without a TPU, in minutes for seven billion parameters.
Memory is that of one device, against what its HBM lets a program use. FLOPs, HBM traffic and bytes over the links are
counted in the compiled program, with loop bodies multiplied by their trip counts; attention kernels count all pairs of
a packed sequence's tokens, also those that the mask hides and a kernel skips. The time is a roofline: the longest of
arithmetic, memory and interconnect, each at its peak. Exit code 1 if it does not fit, with the largest allocations.
--json prints one object instead of the table.
What it compiles: `macro/training/lower.py`, `macro/sampling/lower.py`; how it counts: `macro/parallel/cost_model/`.
"""

import json as json_lib
import sys

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
    from macro.parallel import chips
    from macro.parallel import topology as topologies
    from macro.parallel.mesh import make_mesh, parallel_config

    chip = chips.chip(topology)
    mesh = make_mesh(parallel_config(config), topologies.devices(topology, slices))
    if program == "train":
        fits, record, lines = _train(config, mesh, chip)
    else:
        fits, record, lines = _sample(config, mesh, chip, counts)
    print(json_lib.dumps(record) if json else "\n".join([f"{topology}: {lines[0]}", *lines[1:]]))
    return 0 if fits else 1


def _train(config, mesh, chip) -> tuple[bool, dict, list[str]]:
    """(whether it fits, JSON, table) of the training step.

    In the JSON, `flops` is of the step on all devices, all else of one; what is unknown if it does not fit is None.
    """
    from macro.objectives import OBJECTIVES
    from macro.parallel.cost_model.estimate import estimate
    from macro.parallel.mesh import row_parts
    from macro.training.lower import lower_step
    from macro.utils.config import choose

    lowered = lower_step(OBJECTIVES[choose(config, "objective", OBJECTIVES)], config, mesh)
    found = estimate(lowered.step, chip)
    costs = found.costs
    record = {
        "params": lowered.params,
        "unsharded_share": lowered.unsharded_share,
        "tokens": lowered.tokens,
        "devices": mesh.size,
        "fits": found.fits,
        "argument_bytes": found.argument_bytes,
        "temporary_bytes": found.temporary_bytes,
        "peak_bytes": found.peak_bytes,
        "hbm_bytes": chip.hbm_bytes,
        "flops": costs and costs.flops * mesh.size,
        "flops_per_device": costs and costs.flops,
        "kernel_flops_per_device": costs and costs.kernel_flops,
        "hbm_traffic_bytes": costs and costs.hbm_bytes,
        "collective_bytes": costs and costs.collective_bytes,
        "step_seconds_roofline": found.seconds,
        "bound_by": found.bound_by,
        "culprits": list(found.largest),
        "unknown": list(costs.unknown) if costs else [],
    }
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1) or "one device"
    lines = [
        f"{mesh.size} devices ({axes})",
        f"parameters        {lowered.params:,}, {lowered.unsharded_share:.2%} of their bytes not divided",
        f"batch             {lowered.tokens:,} tokens, {lowered.tokens // row_parts(mesh):,} a device",
        *found.lines(),
    ]
    if costs:
        rate = lowered.tokens / found.seconds
        lines.append(f"throughput        at most {rate:,.0f} tokens a second on all devices")
    return found.fits, record, lines


def _sample(config, mesh, chip, counts: list[int]) -> tuple[bool, dict, list[str]]:
    """(whether all fit, JSON, table) of prefill and denoising, a row for each number of references.

    The JSON has the figures of the largest row under the names that training's have, and all `rows`.
    """
    from macro.objectives.parts import model_config
    from macro.parallel.cost_model.estimate import estimate, gib
    from macro.sampling.lower import SamplingLowering

    programs = SamplingLowering(config, model_config(config), mesh)
    (height, width), rows, largest = programs.size, [], []
    lines = [
        f"{mesh.size} devices draw one image of {height} x {width} in {programs.steps} steps, "
        f"{programs.params:,} parameters",
        "references  context tokens  peak memory  prefill s  steps s  bound by",
    ]
    for references in counts:
        print(f"compiling for {references} references", file=sys.stderr, flush=True)
        lowered = programs.lower(references)
        pair = [estimate(lowered.prefill, chip), estimate(lowered.loop, chip)]
        prefill, loop = pair
        row = {
            "references": references,
            "context_tokens": lowered.context_tokens,
            "fits": prefill.fits and loop.fits,
            "peak_bytes": max(prefill.peak_bytes, loop.peak_bytes),
            "prefill_seconds": prefill.seconds,
            "loop_seconds": loop.seconds,
            "bound_by": loop.bound_by,
            "culprits": [*prefill.largest, *loop.largest],
        }
        rows.append(row)
        if references == max(counts):
            largest = pair
        if row["fits"]:
            end = f"{prefill.seconds:9.3f}  {loop.seconds:7.2f}  {loop.bound_by}"
        else:
            end = f"DOES NOT FIT ({gib(chip.hbm_bytes)} usable): {'; '.join(row['culprits'])}"
        lines.append(f"{references:10d}  {lowered.context_tokens:14,d}  {gib(row['peak_bytes']):>11}  {end}")
    last = max(rows, key=lambda row: row["references"])
    sent: dict[str, int] = {}
    for program in largest:
        for kind, size in program.costs.collective_bytes.items() if program.costs else ():
            sent[kind] = sent.get(kind, 0) + size
    record = {
        "params": programs.params,
        "devices": mesh.size,
        "fits": all(row["fits"] for row in rows),
        "peak_bytes": last["peak_bytes"],
        "hbm_bytes": chip.hbm_bytes,
        "flops": sum(program.costs.flops for program in largest) * mesh.size if last["fits"] else None,
        "step_seconds_roofline": last["prefill_seconds"] + last["loop_seconds"] if last["fits"] else None,
        "bound_by": last["bound_by"],
        "collective_bytes": sent,
        "rows": rows,
    }
    return record["fits"], record, lines


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
