"""What one device does in one run of a compiled program: arithmetic, HBM traffic, bytes over the links.

The compiler's own count (`compiled.cost_analysis()`) counts the body of a loop once, and so a scan over 28 layers
as one layer. Here the optimised text is walked from its entry: loop bodies are multiplied by their trip counts
(`trip_counts.py`), a conditional counts as its most expensive branch; calls, fusions and async computations are walked.

    compiled, text = hlo.compile_and_read(jax.jit(step).lower(...))
    found = costs.of(text)
    seconds, bound_by = estimate.roofline(found, chips.chip("v5e"))

What cannot be known is listed in `Costs.unknown`, never guessed silently: loops whose end depends on data
(counted once), kernels without a declared cost (no arithmetic), foreign custom calls.
Read next: `bytes_accessed.py` for what counts as a byte, `estimate.py` for the time it takes.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from macro.parallel.cost_model.bytes_accessed import hbm_bytes, is_free_call, link_bytes, target
from macro.parallel.cost_model.hlo import Computation, Instruction, Module, parse
from macro.parallel.cost_model.trip_counts import trip_count

_KERNEL = "tpu_custom_call"
_BRANCHES = ("branch_computations", "true_computation", "false_computation")
_RUN = False


@dataclass(frozen=True)
class Costs:
    """The costs of one device for one run of the program.

    `flops`: 2 for each multiplication of matrix products and convolutions that meets no padding, plus what
    kernels declare; `kernel_flops` is the latter alone. `hbm_bytes`: read and written. `collective_bytes`: sent,
    by kind (`bytes_accessed.py` says how). `kernels`: how often each runs. `loops`: trip count of every loop, None
    where it could not be found. `unknown`: what the figures leave out, as text.
    """

    flops: int
    kernel_flops: int
    hbm_bytes: int
    collective_bytes: dict[str, int]
    kernels: dict[str, int]
    loops: dict[str, int | None]
    unknown: tuple[str, ...]


def of(text: str) -> Costs:
    """Reads the optimised text of a program. Raises ValueError if it is not one."""
    walk = _Walk(parse(text))
    total = walk.computation(walk.module.computations[walk.module.entry], _RUN)
    return Costs(
        flops=total.flops,
        kernel_flops=total.kernel_flops,
        hbm_bytes=total.hbm_bytes,
        collective_bytes=dict(sorted(total.sent.items())),
        kernels=dict(sorted(total.kernels.items())),
        loops=walk.loops,
        unknown=tuple(sorted(walk.unknown)),
    )


@dataclass
class _Tally:
    flops: int = 0
    kernel_flops: int = 0
    hbm_bytes: int = 0
    sent: Counter = field(default_factory=Counter)
    kernels: Counter = field(default_factory=Counter)

    def add(self, other: "_Tally", times: int = 1) -> None:
        self.flops += times * other.flops
        self.kernel_flops += times * other.kernel_flops
        self.hbm_bytes += times * other.hbm_bytes
        for mine, theirs in ((self.sent, other.sent), (self.kernels, other.kernels)):
            for key, value in theirs.items():
                mine[key] += times * value

    def weight(self) -> tuple[int, int, int]:
        return self.flops, self.hbm_bytes, self.sent.total()


class _Walk:
    """One walk over a module; each computation is summed once."""

    def __init__(self, module: Module):
        self.module = module
        self.loops: dict[str, int | None] = {}
        self.unknown: set[str] = set()
        self.done: dict[tuple[str, bool], _Tally] = {}

    def computation(self, where: Computation, fused: bool) -> _Tally:
        """The costs of a computation's instructions; inside a fusion they do not access HBM."""
        key = (where.name, fused)
        if key not in self.done:
            tally = self.done[key] = _Tally()
            for instruction in where.instructions.values():
                self._instruction(tally, where, instruction, fused)
        return self.done[key]

    def _instruction(self, tally: _Tally, where: Computation, what: Instruction, fused: bool) -> None:
        if what.opcode == "while":
            self._loop(tally, where, what)
        elif what.opcode == "conditional":
            names = [name for key in _BRANCHES for name in what.called(key)]
            tally.add(max((self._called(name, _RUN) for name in names), key=_Tally.weight))
        elif what.opcode == "custom-call" and target(what) == _KERNEL:
            self._kernel(tally, where, what, fused)
        elif called := self._followed(what):
            for name in called:
                tally.add(self._called(name, fused or what.opcode == "fusion"))
            if what.opcode == "fusion" and not fused:
                tally.hbm_bytes += hbm_bytes(self.module, where, what)
        else:
            self._plain(tally, where, what, fused)

    def _plain(self, tally: _Tally, where: Computation, what: Instruction, fused: bool) -> None:
        if what.opcode == "dot":
            tally.flops += dot_flops(where, what)
        elif what.opcode == "convolution":
            tally.flops += convolution_flops(where, what)
        elif what.opcode == "custom-call" and not is_free_call(what):
            self.unknown.add(f"custom call {target(what)}: arithmetic not known")
        elif collective := link_bytes(self.module, where, what, fused):
            tally.sent[collective[0]] += collective[1]
        if not fused:
            tally.hbm_bytes += hbm_bytes(self.module, where, what)

    def _followed(self, what: Instruction) -> list[str]:
        """Computations that run when this instruction does."""
        if what.opcode == "call":
            return what.called("to_apply")
        if what.opcode in ("fusion", "custom-call") or what.opcode.endswith("-start"):
            return what.called("calls") + what.called("called_computations")
        return []

    def _called(self, name: str, fused: bool) -> _Tally:
        return self.computation(self.module.computations[name], fused)

    def _loop(self, tally: _Tally, where: Computation, loop: Instruction) -> None:
        rounds = self.loops[loop.label] = trip_count(self.module, where, loop)
        if rounds is None:
            self.unknown.add(f"loop {loop.label}: rounds not known, counted once")
        tally.add(self._called(loop.called("body")[0], _RUN), 1 if rounds is None else rounds)
        tally.add(self._called(loop.called("condition")[0], _RUN), 1 if rounds is None else rounds + 1)

    def _kernel(self, tally: _Tally, where: Computation, kernel: Instruction, fused: bool) -> None:
        """A Pallas kernel: the costs that its `pl.CostEstimate` declares."""
        tally.kernels[re.sub(r"(\.\d+|\.clone)*$", "", kernel.name)] += 1
        declared = re.search(r'"cost_estimate":\{([^}]*)\}', kernel.attributes)
        estimate = dict(re.findall(r'"(\w+)":"?(\d+)', declared[1])) if declared else {}
        if declared is None:
            self.unknown.add(f"kernel {kernel.label}: no declared cost")
        tally.flops += int(estimate.get("flops", 0))
        tally.kernel_flops += int(estimate.get("flops", 0))
        if not fused:
            moved = int(estimate.get("bytes_accessed", 0))
            tally.hbm_bytes += moved or hbm_bytes(self.module, where, kernel)


def dot_flops(where: Computation, dot: Instruction) -> int:
    """2 m n k of a (batched) matrix product."""
    left = where.operand(dot, 0).arrays[0]
    contracted = dot.attribute("lhs_contracting_dims").strip("{}")
    return 2 * dot.arrays[0].elements * math.prod(left.dims[int(axis)] for axis in contracted.split(",") if axis)


def convolution_flops(where: Computation, convolution: Instruction) -> int:
    """2 for each multiplication of an input element (no padding, no hole of a dilation) with a kernel element.

    So a matrix product that TPU compilers write as a convolution counts as the product: they turn a batch
    dimension into a window dilated such that each output uses one element only.
    """
    left, right = (where.operand(convolution, side).arrays[0] for side in (0, 1))
    out = convolution.arrays[0]
    labels = re.fullmatch(r"(\w+)_(\w+)->(\w+)", convolution.attribute("dim_labels"))
    inputs, kernel, output = (dict(zip(names, array.dims, strict=True))
                              for names, array in zip(labels.groups(), (left, right, out), strict=True))
    window = convolution.attribute("window") or "{}"
    count = 2 * output["b"] * output["f"] * kernel["i"]
    for at, axis in enumerate(sorted(name for name in output if name.isdigit())):
        count *= _meetings(inputs[axis], kernel[axis], output[axis], **_window(window, at))
    return count


def _window(window: str, axis: int) -> dict[str, int]:
    """Stride, low padding and dilations of one spatial axis out of `{size=3x3 stride=2x2 pad=0_1x0_1}`."""
    found = {key: values.split("x")[axis] for key, values in re.findall(r"(\w+)=(\S+?)(?=[ }])", window)}
    return {
        "stride": int(found.get("stride", 1)),
        "low": int(found.get("pad", "0_0").split("_")[0]),
        "input_step": int(found.get("lhs_dilate", 1)),
        "kernel_step": int(found.get("rhs_dilate", 1)),
    }


def _meetings(size: int, kernel: int, output: int, stride: int, low: int, input_step: int, kernel_step: int) -> int:
    """The number of (output position, kernel position) pairs of one axis that read an element of the input."""
    # Output o and kernel position k read position o * stride + k * kernel_step - low; elements are at multiples.
    read = np.add.outer(np.arange(output) * stride, np.arange(kernel) * kernel_step - low)
    return int(((read % input_step == 0) & (read >= 0) & (read <= (size - 1) * input_step)).sum())
