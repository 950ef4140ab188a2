"""Whether a program fits a TPU, and how long it takes at least: compiled for devices that are not here.

    fitted = fit(jax.jit(step).lower(...), chips.chip("v5e"))
    fitted.peak_bytes <= fitted.chip.hbm_bytes, fitted.seconds, fitted.bound_by

Memory is the compiler's own plan for one device. Where a program is too large the compiler refuses it and names its
largest allocations instead: then `fits` is False, and these are the culprits.
Read next: `costs.py` (what one device does), `chips.py` (how fast it can).
"""

import re
from dataclasses import dataclass

import jax

from macro.parallel import costs, hlo
from macro.parallel.chips import Chip, roofline
from macro.parallel.costs import Costs

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
CULPRITS = 3


@dataclass(frozen=True)
class Fit:
    """Of one device, in bytes. Where the program does not fit, only `peak_bytes` and `culprits` are known.

    Attributes:
        argument_bytes: what the program is given (parameters, optimizer state, a batch), much of it changed in place.
        temporary_bytes: what lives only within a run.
        peak_bytes: both, and results that lie in memory of their own.
        culprits: the largest allocations in words, largest first.
        costs, seconds, bound_by: see `costs.Costs` and `chips.roofline`.
    """

    chip: Chip
    fits: bool
    peak_bytes: int
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    culprits: tuple[str, ...] = ()
    costs: Costs | None = None
    seconds: float | None = None
    bound_by: str | None = None


def fit(lowered: jax.stages.Lowered, chip: Chip) -> Fit:
    """Compiles a program that was lowered for devices of `chip`."""
    try:
        compiled, text = hlo.compile_and_read(lowered)
    except hlo.TooLarge as error:
        return _refused(error.report, chip)
    memory = compiled.memory_analysis()
    own = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + own + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    found = costs.of(text)
    seconds, bound_by = roofline(found, chip)
    return Fit(
        chip=chip,
        fits=peak <= chip.hbm_bytes,
        peak_bytes=peak,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        costs=found,
        seconds=seconds,
        bound_by=bound_by,
    )


def _refused(report: str, chip: Chip) -> Fit:
    """What the compiler's account of the memory says about a program that is too large.

        Memory Space: default (color=0)
        Total bytes: 147460210688 (137.33GiB)
           34.33GiB( 50%);   34.33GiB;        16384;                2; bf16[9000000,1024], f32[9000000,1024]
    """
    hbm = report.split("Memory Space: default", 1)[1].split("Memory Space:", 1)[0]
    total = int(re.search(r"Total bytes: (\d+)", hbm)[1])
    entries = re.findall(r"\); +([\d.]+)(B|KiB|MiB|GiB|TiB); +\d+; +\d+; (.*)", hbm)
    largest = sorted(entries, key=lambda entry: float(entry[0]) * _UNITS[entry[1]], reverse=True)
    culprits = tuple(f"{size} {unit} {shapes}" for size, unit, shapes in largest[:CULPRITS])
    return Fit(chip=chip, fits=False, peak_bytes=total, culprits=culprits)


def describe(fitted: Fit) -> list[str]:
    """Lines for a person about one program."""
    peak, hbm = gib(fitted.peak_bytes), gib(fitted.chip.hbm_bytes)
    if not fitted.fits:
        largest = [f"  largest         {line}" for line in fitted.culprits]
        return [f"memory            DOES NOT FIT: {peak} of {hbm} usable", *largest]
    found = fitted.costs
    sent = ", ".join(f"{kind} {gib(size)}" for kind, size in found.collective_bytes.items()) or "nothing"
    return [
        f"memory            {peak} of {hbm} usable: {gib(fitted.argument_bytes)} given, "
        f"{gib(fitted.temporary_bytes)} temporary",
        f"arithmetic        {found.flops / 1e12:,.1f} TFLOP, {found.kernel_flops / max(found.flops, 1):.0%} attention",
        f"HBM traffic       {gib(found.hbm_bytes)}",
        f"sent              {sent}",
        f"time              {fitted.seconds:.3g} s at least, bound by {fitted.bound_by}",
        *(f"not counted       {line}" for line in found.unknown),
    ]


def gib(size: int) -> str:
    """Bytes as GiB."""
    return f"{size / 2**30:.2f} GiB"
