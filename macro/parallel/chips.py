"""Peak rates and memory of TPU chips.

Figures: Google's pages "TPU v5e", "TPU v5p" and "TPU v6e" in the documentation of Cloud TPU. Their versions disagree
on two points. The interconnect of v6e is 3584 Gbit/s in older and 3200 in newer ones: 3200 is used, as only it
agrees with the all-reduce bandwidth of a pod on the same page. HBM bandwidth is rounded to 800 and 1600 GB/s in
newer ones: the older, finer figures are used. `hbm_bytes` is not the advertised size but what libtpu lets a
program use, according to its message about a program that is too large.

TPU v4 is left out: its topologies here have one device per core, its published figures are per chip.
"""

from dataclasses import dataclass

from macro.utils.config import suggestion
from macro.utils.errors import UserError

_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One chip, which is one JAX device.

    `flops_bf16`: peak per second. `hbm_bytes`: usable; `hbm_bandwidth`: bytes per second. `ici_bandwidth`: bytes per
    second that it can send over all its links to neighbours together. `device_kind`: as JAX prints it.
    """

    name: str
    device_kind: str
    hbm_bytes: int
    flops_bf16: float
    hbm_bandwidth: float
    ici_bandwidth: float


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "TPU v5 lite", int(15.75 * _GIB), 197e12, 819e9, 1600e9 / 8),
        Chip("v5p", "TPU v5", int(95.73 * _GIB), 459e12, 2765e9, 4800e9 / 8),
        Chip("v6e", "TPU v6 lite", int(31.24 * _GIB), 918e12, 1640e9, 3200e9 / 8),
    )
}


def chip(name: str) -> Chip:
    """The chip of that name, also of a topology such as `v5e:4x4`. Raises UserError for an unknown one."""
    kind = name.partition(":")[0]
    if kind not in CHIPS:
        raise UserError(f"unknown TPU chip {kind!r}{suggestion(kind, list(CHIPS))}")
    return CHIPS[kind]
