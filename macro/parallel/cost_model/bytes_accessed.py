"""Bytes moved by one instruction of a compiled program: to and from HBM, and over the links.

**HBM.** Counted at the boundaries of fusions: intermediate values of a fusion stay on the chip. Buffers in
another memory space (on TPU `S(1)`, the on-chip memory) cost nothing; the copy into it is charged.
Padding to whole tiles is moved like data. A buffer of which only slices are used is charged for the slices, one
that is updated in place for the update: otherwise every iteration of a scan would be charged for all stacked layers.

**Links.** Bytes that one device sends in a ring of N devices, padding left out:

    all-gather          (N-1)/N * output          all-reduce   2 (N-1)/N * input
    reduce-scatter      (N-1)/N * input           all-to-all     (N-1)/N * input
    collective-permute  input

Read next: `macro/parallel/cost_model/cost_analysis.py`.
"""

import math
import re
from collections.abc import Iterable

from macro.parallel.cost_model.hlo import HBM, Array, Computation, Instruction, Module, arrays, elements_of_tuple

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "optimization-barrier", "add-dependency", "async-start", "async-update", "async-done",
    "while", "conditional", "call",
}
_FREE_CALLS = {
    "ConcatBitcast", "AllocateBuffer", "AssumeGatherIndicesInBound", "GatherScatterIndicesBitpacked",
    "AsyncCollectiveStart", "AsyncCollectiveDone", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape",
}
_SLICES = {"dynamic-slice", "slice", "gather"}
# Operations of which each result element needs just one element of each operand of the same size.
_ELEMENTWISE = {
    "bitcast", "copy", "convert", "reshape", "transpose", "negate", "abs", "exponential", "tanh", "logistic", "sqrt",
    "rsqrt", "add", "subtract", "multiply", "divide", "maximum", "minimum", "select", "compare",
}


def target(instruction: Instruction) -> str:
    """The target of a custom call."""
    return instruction.attribute("custom_call_target").strip('"')


def is_free_call(instruction: Instruction) -> bool:
    """Whether a custom call only renames, reserves or marks something."""
    return target(instruction) in _FREE_CALLS


def base(opcode: str) -> str:
    """The operation that this instruction is or starts; "" for a `-done`, which costs nothing."""
    return "" if opcode.endswith(("-done", "-update")) else opcode.removesuffix("-start")


def _stored(found: Iterable[Array]) -> int:
    return sum(array.stored for array in found if array.space == HBM)


# HBM


def hbm_bytes(module: Module, where: Computation, what: Instruction) -> int:
    """Bytes that one execution of an instruction, outside of any fusion, reads from and writes to HBM."""
    opcode = base(what.opcode)
    if what.opcode in _FREE or not opcode or (opcode == "custom-call" and is_free_call(what)):
        return 0
    if opcode == "fusion":
        return _fusion_bytes(module, where, what)
    made = result(what)
    read = [where[name].arrays for name in what.operands]
    if opcode in _SLICES:
        # The operand is charged for the slice, and may be in another memory space than the result.
        whole, part = read[0][0], _stored_as(made[0], read[0][0])
        return min(_stored([part]), _stored([whole])) + sum(map(_stored, read[1:])) + _stored(made)
    if opcode == "dynamic-update-slice":
        return _stored(read[1]) + _stored([_stored_as(read[1][0], made[0])])
    if opcode == "scatter":
        changed = [_stored_as(update, made[0]) for update in read[-1]]
        return sum(map(_stored, read[1:])) + 2 * _stored(changed)
    return sum(map(_stored, read)) + _stored(made)


def result(what: Instruction) -> tuple[Array, ...]:
    """Arrays that an instruction makes; for an asynchronous start without its operands and semaphores."""
    if not what.opcode.endswith("-start") or what.opcode == "all-reduce-start":
        return what.arrays
    parts = elements_of_tuple(what.shape)
    return arrays(parts[0 if what.opcode == "copy-start" else 1])


def _stored_as(part: Array, whole: Array) -> Array:
    """A slice, in the memory space of its buffer."""
    return Array(part.dtype, part.dims, part.minor_to_major, part.tile, whole.space)


def _fusion_bytes(module: Module, where: Computation, fusion: Instruction) -> int:
    inner = module.computations[fusion.called("calls")[0]]
    read = 0
    for index, name in enumerate(fusion.operands):
        found = where[name].arrays
        if len(found) == 1 and found[0].elements:
            needed = _used(module, inner, inner.parameters[index], {})
            read += -(-_stored(found) * needed // found[0].elements)
        else:
            read += _stored(found)
    return read + _written(module, inner, inner.root, fusion.arrays)


def _used(module: Module, inner: Computation, what: Instruction, known: dict[str, int]) -> int:
    """The number of elements of a value inside a fusion that are needed."""
    if what.name in known:
        return known[what.name]
    whole = what.arrays[0].elements if what.arrays else 0
    needed = 0
    for user, index in inner.users[what.name]:
        if user.opcode in _SLICES and index == 0:
            needed += min(_used(module, inner, user, known), user.arrays[0].elements)
        elif user.opcode == "dynamic-update-slice" and index == 0:
            needed += 0 if _updates_in_place(inner, user) else _used(module, inner, user, known)
        elif user.opcode in _ELEMENTWISE:
            needed += _used(module, inner, user, known)
        elif user.opcode == "fusion":
            nested = module.computations[user.called("calls")[0]]
            needed += _used(module, nested, nested.parameters[index], {})
        elif not (_is_step(inner, user) or user is inner.root and user.opcode == "tuple"):
            needed = whole
    if what is inner.root and what.opcode != "parameter" or _is_returned(inner, what):
        needed = whole
    known[what.name] = min(needed, whole)
    return known[what.name]


def _is_returned(inner: Computation, what: Instruction) -> bool:
    """Whether a fusion returns this value; a parameter that it returns unchanged is not read."""
    return what.opcode != "parameter" and any(
        user is inner.root and user.opcode == "tuple" for user, _ in inner.users[what.name]
    )


def _updates_in_place(inner: Computation, update: Instruction) -> bool:
    while update is not inner.root:
        users = inner.users[update.name]
        if len(users) != 1 or users[0][0].opcode not in ("bitcast", "tuple"):
            return False
        update = users[0][0]
    return True


def _written(module: Module, inner: Computation, what: Instruction, out: tuple[Array, ...]) -> int:
    """Bytes of HBM that a fusion with this root writes to its results `out`."""
    if what.opcode == "tuple" and len(what.operands) == len(out):
        return sum(_written(module, inner, inner[name], out[i:i + 1]) for i, name in enumerate(what.operands))
    if what.opcode == "bitcast":
        return _written(module, inner, inner.operand(what, 0), out)
    if what.opcode == "fusion" and len(out) == len(what.arrays):
        nested = module.computations[what.called("calls")[0]]
        return _written(module, nested, nested.root, out)
    if what.opcode == "dynamic-update-slice":
        return _stored([_stored_as(inner.operand(what, 1).arrays[0], out[0])])
    if what.opcode == "scatter":
        return _stored(_stored_as(array, out[0]) for array in inner.operand(what, -1).arrays)
    if what.opcode == "parameter" or _is_step(inner, what):
        return 0
    if what.opcode == "custom-call" and target(what) == "AsyncCollectiveStart":
        return _stored(out[1:])
    return 0 if what.opcode == "custom-call" and target(what) == "AsyncCollectiveDone" else _stored(out)


# Links


def _is_step(inner: Computation, what: Instruction) -> bool:
    """Whether it is a later part of a collective that TPU compilers split over several fusions.

    Each of those fusions repeats the collective; only the one that starts it is charged.
    """
    if "async_collective_fusion_config" not in what.attributes:
        return what.opcode == "custom-call" and target(what) == "AsyncCollectiveDone"
    return not any(
        user.opcode == "custom-call" and target(user) == "AsyncCollectiveStart" for user, _ in inner.users[what.name]
    )


def link_bytes(module: Module, where: Computation, what: Instruction, fused: bool) -> tuple[str, int] | None:
    """(kind, bytes that a device sends) of a collective; None if it is not one or was charged before."""
    kind = base(what.opcode).removeprefix("ragged-")
    if kind not in COLLECTIVES or _is_step(where, what):
        return None
    sent = sum(array.size for name in what.operands for array in where[name].arrays)
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", what.attributes)
        moves = any(a != b for a, b in re.findall(r"\{(\d+),(\d+)", pairs[0])) if pairs else False
        return kind, sent if moves else 0
    group = group_size(what.attributes, module.devices)
    if kind == "all-gather":
        sent = sum(array.size for array in result(what))
    elif kind == "all-reduce":
        if fused and _is_only_cut(where, what):
            # TPU's form of a reduce-scatter: a fusion in which each device slices its part out of the sum.
            kind = "reduce-scatter"
        else:
            sent *= 2
    return kind, -(-sent * (group - 1) // group)


def _is_only_cut(where: Computation, what: Instruction) -> bool:
    users = [user for user, _ in where.users[what.name]]
    renamed = ("bitcast", "get-tuple-element")
    return bool(users) and all(
        user.opcode == "dynamic-slice" or (user.opcode in renamed and _is_only_cut(where, user)) for user in users
    )


def group_size(attributes: str, devices: int) -> int:
    """The number of devices in one group of a collective.

    Reads `{{0,1},{2,3}}`, `[groups,size]<=[...]` and `mesh['x'=4,'y'=2] {'x'}`; without groups all devices.
    """
    text = attributes.partition("replica_groups=")[2]
    if match := re.match(r"\[\d+,(\d+)\]<=", text):
        return int(match[1])
    if match := re.match(r"mesh\[([^\]]*)\]\S* \{([^}]*)\}", text):
        axes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        # Part of an axis may be used: 'x':(2)4 is four of its positions.
        return math.prod(int(part or axes[axis]) for axis, part in re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2]))
    if match := re.match(r"\{(\{.*?\})\}", text):
        return max(group.count(",") + 1 for group in re.findall(r"\{([^{}]+)\}", match[1]))
    return devices
