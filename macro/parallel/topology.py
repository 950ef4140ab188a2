"""Devices of TPU slices that are not attached, to compile for: libtpu knows every topology by name.

    devices("v5p:4x4x4")                64 chips of one slice
    devices("v5e:16x16", slices=2)      two slices of 256

They hold no arrays, but programs can be compiled for them (`macro/parallel/cost_model/estimate.py`).
"""

import math
import os
from collections.abc import Sequence

import jax

from macro.parallel.chips import chip
from macro.utils.errors import UserError

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = (
    "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16",
)  # fmt: skip
SHAPES: dict[str, Sequence[str]] = {"v5e": _FLAT, "v5p": _SOLID, "v6e": _FLAT}


def size(shape: str) -> int:
    """The number of chips of a shape such as "4x4x4"."""
    return math.prod(int(side) for side in shape.split("x"))


def check(name: str) -> None:
    """Raises UserError, with the nearest existing name, for a name that is not a topology."""
    kind, _, shape = name.partition(":")
    shapes = SHAPES[chip(kind).name]
    if shape in shapes:
        return
    sides = shape.split("x")
    if all(side.isdigit() and int(side) for side in sides):
        nearest = min(shapes, key=lambda known: abs(math.log(size(known) / size(shape))))
        raise UserError(f"--topology={name}: {kind} has no slice of {shape}; the nearest is {kind}:{nearest}")
    raise UserError(f"--topology={name}: write chip:shape, such as {kind}:{shapes[-1]}; {kind} has {', '.join(shapes)}")


def devices(name: str, slices: int = 1) -> list[jax.Device]:
    """The devices of `slices` slices of a topology.

    Raises:
        UserError: no such topology, or the libtpu wheel is missing.
    """
    check(name)
    # Without the first three libtpu looks for an attached TPU; their values make no difference to the
    # topology. The last two silence its log.
    for key, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(key, value)
    # Programs for absent devices cannot be loaded from the cache, and a cached one writes no dump to count.
    jax.config.update("jax_enable_compilation_cache", False)
    from jax.experimental import topologies

    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise UserError("compiling for a TPU needs the libtpu wheel: pip install -e '.[compile]'") from None
    more: dict = {"num_slices": slices} if slices > 1 else {}
    if size(name.partition(":")[2]) == 1:
        more["chips_per_host_bounds"] = [1, 1, 1]  # libtpu before 0.0.50 otherwise takes a host of four chips
    return list(topologies.get_topology_desc(name, "tpu", **more).devices)
