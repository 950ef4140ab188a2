"""Whether a program fits a TPU and the least time it takes, compiled ahead of time for devices that are not attached.

    found = estimate(jax.jit(step).lower(...), chips.chip("v5e"))
    found.fits, found.peak_bytes, found.seconds, found.bound_by

Memory is the compiler's own plan for one device. The compiler refuses a program that is too large and reports its
largest allocations: `fits` is False and `largest` lists them.
Read next: `cost_analysis.py` (FLOPs and bytes of one device), `macro/parallel/chips.py` (peak rates).
"""

import re
from dataclasses import dataclass

import jax

from macro.parallel.chips import Chip
from macro.parallel.cost_model import cost_analysis, hlo
from macro.parallel.cost_model.cost_analysis import Costs

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
LARGEST = 3  # allocations that are listed


@dataclass(frozen=True)
class Estimate:
    """One program on one device, sizes in bytes. If it does not fit, only `peak_bytes` and `largest` are known.

    Attributes:
        argument_bytes: its inputs (parameters, optimizer state, a batch), most of them donated and updated in place.
        temporary_bytes: what is allocated only while it runs.
        peak_bytes: both, its code, and outputs with memory of their own.
        largest: the largest allocations as text, largest first.
        costs, seconds, bound_by: see `cost_analysis.Costs` and `roofline`.
    """

    chip: Chip
    fits: bool
    peak_bytes: int
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    largest: tuple[str, ...] = ()
    costs: Costs | None = None
    seconds: float | None = None
    bound_by: str | None = None

    def lines(self) -> list[str]:
        """A human-readable table."""
        peak, hbm = gib(self.peak_bytes), gib(self.chip.hbm_bytes)
        if not self.fits:
            return [
                f"memory            DOES NOT FIT: {peak} of {hbm} usable",
                *(f"  largest         {line}" for line in self.largest),
            ]
        costs, given, temporary = self.costs, gib(self.argument_bytes), gib(self.temporary_bytes)
        sent = ", ".join(f"{kind} {gib(size)}" for kind, size in costs.collective_bytes.items()) or "nothing"
        share = costs.kernel_flops / max(costs.flops, 1)
        return [
            f"memory            {peak} of {hbm} usable: {given} arguments, {temporary} temporary",
            f"arithmetic        {costs.flops / 1e12:,.1f} TFLOP, {share:.0%} attention",
            f"HBM traffic       {gib(costs.hbm_bytes)}",
            f"sent              {sent}",
            f"time              {self.seconds:.3g} s at least, bound by {self.bound_by}",
            *(f"not counted       {line}" for line in costs.unknown),
        ]


def estimate(lowered: jax.stages.Lowered, chip: Chip) -> Estimate:
    """Compiles a program that was lowered for devices of `chip`."""
    try:
        compiled, text = hlo.compile_and_read(lowered)
    except hlo.TooLarge as error:
        return _refused(error.report, chip)
    memory = compiled.memory_analysis()
    own = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + own + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    costs = cost_analysis.of(text)
    seconds, bound_by = roofline(costs, chip)
    return Estimate(
        chip=chip,
        fits=peak <= chip.hbm_bytes,
        peak_bytes=peak,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        costs=costs,
        seconds=seconds,
        bound_by=bound_by,
    )


def roofline(costs: Costs, chip: Chip) -> tuple[float, str]:
    """(seconds, what bounds them: "compute", "memory" or "interconnect") of one run of a program.

    The longest of the three, so a lower bound. It assumes that arithmetic, HBM and links overlap perfectly and each
    runs at its peak all the time, all arithmetic in bfloat16 on the matrix unit, collectives over all links of a chip
    at once: a ring along one axis of the torus has only two of them, and slices too small to close the torus (on v5e
    and v6e below 16 chips along an axis) have fewer.
    """
    seconds = {
        "compute": costs.flops / chip.flops_bf16,
        "memory": costs.hbm_bytes / chip.hbm_bandwidth,
        "interconnect": sum(costs.collective_bytes.values()) / chip.ici_bandwidth,
    }
    bound_by = max(seconds, key=seconds.get)
    return seconds[bound_by], bound_by


def _refused(report: str, chip: Chip) -> Estimate:
    """Reads the compiler's memory report about a program that is too large.

        Memory Space: default (color=0)
        Total bytes: 147460210688 (137.33GiB)
           34.33GiB( 50%);   34.33GiB;        16384;                2; bf16[9000000,1024], f32[9000000,1024]
    """
    hbm = report.split("Memory Space: default", 1)[1].split("Memory Space:", 1)[0]
    total = int(re.search(r"Total bytes: (\d+)", hbm)[1])
    entries = re.findall(r"\); +([\d.]+)(B|KiB|MiB|GiB|TiB); +\d+; +\d+; (.*)", hbm)
    entries.sort(key=lambda entry: float(entry[0]) * _UNITS[entry[1]], reverse=True)
    largest = tuple(f"{size} {unit} {shapes}" for size, unit, shapes in entries[:LARGEST])
    return Estimate(chip=chip, fits=False, peak_bytes=total, largest=largest)


def gib(size: int) -> str:
    """Bytes as GiB."""
    return f"{size / 2**30:.2f} GiB"
