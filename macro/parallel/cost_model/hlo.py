"""The text of a compiled program (XLA's optimised HLO) as computations and instructions.

A small reader for what `compiled.as_text()` prints on CPU and TPU: names, shapes with their layout, operands,
attributes. Semantics are in `macro/parallel/cost_model/cost_analysis.py`, to be read next.

Layouts matter: `bf16[512,256]{1,0:T(8,128)(2,1)S(1)}` is stored in tiles of 8 x 128 elements and in memory space 1,
a TPU's on-chip memory. Space 0, which is not printed, is the HBM.
"""

import math
import re
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

HBM = 0

_BITS = {"pred": 8, "token": 0, "opaque": 0, "tuple": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_LINE = re.compile(r"\s+(ROOT )?%([^\s=]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\(")
_HEAD = re.compile(r"(ENTRY )?%([^\s(]+) .*\{$")
_COMMENT = re.compile(r"/\*.*?\*/")
_NAME = re.compile(r"%([^\s,]+)")


@dataclass(frozen=True)
class Array:
    """One array of a shape: element type, dimensions, which dimension is minor, first tile, memory space."""

    dtype: str
    dims: tuple[int, ...]
    minor_to_major: tuple[int, ...]
    tile: tuple[int, ...]
    space: int

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def size(self) -> int:
        """Bytes of its elements, without padding."""
        return _bytes(self.elements, self.dtype)

    @property
    def stored(self) -> int:
        """Bytes in memory, with the minor dimensions padded to whole tiles."""
        physical = [self.dims[axis] for axis in reversed(self.minor_to_major)]
        physical = [1] * (len(self.tile) - len(physical)) + physical
        for back, tile in enumerate(reversed(self.tile), 1):
            physical[-back] = -(-physical[-back] // tile) * tile
        return _bytes(math.prod(physical), self.dtype)


def _bytes(elements: int, dtype: str) -> int:
    bits = _BITS.get(dtype)
    if bits is None:
        # s32, bf16, f8e4m3fn, c64: the first number is the width.
        bits = int(re.search(r"\d+", dtype).group())
        _BITS[dtype] = bits
    return -(-elements * bits // 8)


def arrays(text: str) -> tuple[Array, ...]:
    """All arrays of a printed shape; those of a tuple in order, nested tuples flattened."""
    return tuple(_array(*match.groups()) for match in _ARRAY.finditer(_COMMENT.sub("", text)))


def _array(dtype: str, dims: str, layout: str | None) -> Array:
    sizes = tuple(int(dim.lstrip("<= ")) for dim in dims.split(",") if dim)
    order, _, rest = (layout or "").partition(":")
    minor_to_major = tuple(int(axis) for axis in order.split(",") if axis)
    if len(minor_to_major) != len(sizes):
        minor_to_major = tuple(reversed(range(len(sizes))))
    tile, space = _TILE.search(rest), _SPACE.search(rest)
    return Array(dtype, sizes, minor_to_major, tuple(map(int, tile[1].split(","))) if tile else (),
                 int(space[1]) if space else HBM)


def elements_of_tuple(text: str) -> list[str]:
    """The printed shapes inside a printed tuple shape, one level deep; for an array: itself."""
    text = _COMMENT.sub("", text)
    if not text.startswith("("):
        return [text]
    parts, depth, start = [], 0, 1
    for at, letter in enumerate(text):
        depth += letter in "([{"
        depth -= letter in ")]}"
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [part for part in parts if part]


class Instruction:
    """One line: `shape` as printed, `operands` by name, `attributes` the text behind the operands."""

    def __init__(self, name: str, shape: str, opcode: str, operands: str, attributes: str):
        self.name, self.shape, self.opcode = name, shape, opcode
        self.inside, self.attributes = operands, attributes

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands; empty for constants and parameters (see `inside`)."""
        if self.opcode in ("constant", "parameter"):
            return ()
        return tuple(_NAME.findall(self.inside))

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        return arrays(self.shape)

    def attribute(self, key: str) -> str | None:
        """The word, `{...}` or `[...]` after `key=`, or None. Names come without their `%`."""
        match = re.search(rf"(?:^|[ ,]){key}=(\{{[^{{}}]*\}}|\[[^\]]*\]|[^\s,]+)", self.attributes)
        return match[1].lstrip("%") if match else None

    def called(self, key: str) -> list[str]:
        """Names of the computations after `key=`, one or a list in braces."""
        found = self.attribute(key)
        return [name.strip().lstrip("%") for name in found.strip("{}").split(",") if name.strip()] if found else []

    @cached_property
    def label(self) -> str:
        """Its name and, where known, the operation that it came from."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return f"{self.name} ({match[1]})" if match else self.name


class Computation:
    """Instructions by name, in the order of execution; `root` is what it returns."""

    def __init__(self, name: str):
        self.name = name
        self.instructions: dict[str, Instruction] = {}
        self.root: Instruction | None = None

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        return self.instructions[instruction.operands[index]]

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {int(x.inside): x for x in self.instructions.values() if x.opcode == "parameter"}

    @cached_property
    def users(self) -> dict[str, list[tuple[Instruction, int]]]:
        """For every instruction, its users and as which operand they read it."""
        users: dict[str, list] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for index, operand in enumerate(instruction.operands):
                users[operand].append((instruction, index))
        return users


@dataclass(frozen=True)
class Module:
    """All computations of a program by name, the one it starts with, and how many devices run it."""

    computations: dict[str, Computation]
    entry: str
    devices: int


def parse(text: str) -> Module:
    """Reads the text of a module. Raises ValueError if it has no entry computation."""
    computations: dict[str, Computation] = {}
    entry, current, devices = None, None, 1
    for line in text.splitlines():
        if current is None:
            if line.startswith("HloModule"):
                devices = math.prod(map(int, re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", line)))
            elif line.endswith("{") and (head := _HEAD.match(line)):
                current = computations[head[2]] = Computation(head[2])
                entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif match := _LINE.match(line):
            root, name, shape, opcode = match.groups()
            end = _closing(line, match.end())
            current.instructions[name] = Instruction(name, shape, opcode, line[match.end():end], line[end + 1:])
            if root:
                current.root = current.instructions[name]
    if entry is None:
        raise ValueError("not the text of an HLO module: no ENTRY computation")
    return Module(computations, entry, devices)


def _closing(line: str, start: int) -> int:
    """Index of the bracket that closes the one before `start`."""
    end = line.find(")", start)
    while end >= 0 and line.count("(", start, end) > line.count(")", start, end):
        end = line.find(")", end + 1)
    return end if end >= 0 else len(line)


class TooLarge(Exception):
    """The compiler refused a program that does not fit the device; `report` is its memory report."""

    def __init__(self, report: str):
        super().__init__("the program does not fit the device")
        self.report = report


def compile_and_read(lowered: Any) -> tuple[Any, str]:
    """Compiles a `jax.stages.Lowered`; returns the compiled program and its optimised text.

    The text is taken from the compiler's own dump and not from `compiled.as_text()`: where libtpu moves a
    gather to the sparse cores (v5p), jaxlib cannot read the module back ("async-update instruction should have
    1 operands but sees 3").

    Raises:
        TooLarge: the device has too little memory for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            compiled = lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise TooLarge(_newest(folder, "memory-usage-report")) from error
        return compiled, _newest(folder, "after_optimizations")


def _newest(folder: str, name: str) -> str:
    """The latest file of the compiler's dump whose name has this ending."""
    return max(Path(folder).glob(f"*{name}.txt"), key=lambda path: path.stat().st_mtime_ns).read_text()
