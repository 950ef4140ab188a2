"""How often a compiled loop runs, read off its text.

XLA on CPU prints the count (`known_trip_count`). On TPU it does not: there it follows from the induction
variable, its first value, its step in the body and the bound that the condition compares it with. All four are
found by following scalars through the program: the step and the side of the comparison by asking what they are
for an induction variable of 0 and of 1. Read next: `macro/parallel/cost_model/cost_analysis.py`.
"""

import re
from dataclasses import dataclass

from macro.parallel.cost_model.hlo import Computation, Instruction, Module

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_PASSES_ON = {"copy", "bitcast", "convert", "reshape", "copy-start", "copy-done", "opt-barrier", "optimization-barrier"}
_ARITHMETIC = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "maximum": max,
    "minimum": min,
}
_MIRRORED = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE", "NE": "NE"}
_CALLS = ("calls", "to_apply", "body", "condition", "branch_computations", "called_computations")


@dataclass(frozen=True)
class _Guess:
    """Pretend that element `index` of the parameter of `computation` (None: the parameter itself) is `value`."""

    computation: str
    index: int | None
    value: int


class Trips:
    """Trip counts of the loops of one module."""

    def __init__(self, module: Module):
        self.module = module
        self.callers: dict[str, list[tuple[Computation, Instruction]]] = {}
        for computation in module.computations.values():
            for instruction in computation.instructions.values():
                for name in {name for key in _CALLS for name in instruction.called(key)}:
                    self.callers.setdefault(name, []).append((computation, instruction))

    def of(self, computation: Computation, loop: Instruction) -> int | None:
        """How often the body of the `while` instruction runs; None if the text does not tell."""
        if known := _KNOWN.search(loop.attributes):
            return int(known[1])
        condition = self.module.computations[loop.called("condition")[0]]
        body = self.module.computations[loop.called("body")[0]]
        for index in _scalar_elements(condition):
            step = self._line(body, body.root, index, _Guess(body.name, index, 0))
            test = self._comparison(condition, index)
            first = self._element(computation, computation.operand(loop, 0), index, None)
            if step and test and first is not None and step[0] == 1:
                return _count(first, step[1], *test)
        return None

    def _comparison(self, condition: Computation, index: int | None) -> tuple[str, int] | None:
        """(direction, bound) such that the loop goes on while `variable direction bound`."""
        where, root = condition, condition.root
        while root.opcode in _PASSES_ON or root.opcode in ("fusion", "call"):
            if root.opcode in _PASSES_ON:
                root = where.operand(root, 0)
            else:
                where = self.module.computations[(root.called("calls") or root.called("to_apply"))[0]]
                root = where.root
        if root.opcode != "compare":
            return None
        guess = _Guess(condition.name, index, 0)
        left, right = (self._line(where, where.operand(root, side), None, guess) for side in (0, 1))
        direction = root.attribute("direction")
        if not left or not right or {left[0], right[0]} != {0, 1} or direction not in _MIRRORED:
            return None
        if right[0] == 1:
            left, right, direction = right, left, _MIRRORED[direction]
        return direction, right[1] - left[1]

    def _line(self, where: Computation, what: Instruction, index: int | None, guess: _Guess) -> tuple[int, int] | None:
        """(slope, offset) of a scalar as a function of the guessed variable."""
        ends = [self._element(where, what, index, _Guess(guess.computation, guess.index, value)) for value in (0, 1)]
        return None if None in ends else (ends[1] - ends[0], ends[0])

    def _element(self, where: Computation, what: Instruction, index: int | None, guess: _Guess | None) -> int | None:
        """Value of an integer scalar, or of element `index` of a tuple; None if it is not a constant."""
        follow = {"parameter": self._parameter, "fusion": self._callee, "call": self._callee, "while": self._loop}
        if what.opcode in follow:
            return follow[what.opcode](where, what, index, guess)
        if what.opcode in _PASSES_ON:
            return self._element(where, where.operand(what, 0), index, guess)
        if what.opcode == "tuple" and index is not None:
            return self._element(where, where.operand(what, index), None, guess)
        if what.opcode == "get-tuple-element":
            return self._element(where, where.operand(what, 0), int(what.attribute("index")), guess)
        if what.opcode == "constant":
            return int(what.inside) if re.fullmatch(r"-?\d+", what.inside) else None
        if what.opcode in _ARITHMETIC:
            values = [self._element(where, where.operand(what, side), None, guess) for side in (0, 1)]
            return None if None in values else _ARITHMETIC[what.opcode](*values)
        return None

    def _callee(self, where: Computation, what: Instruction, index: int | None, guess: _Guess | None) -> int | None:
        inner = self.module.computations[(what.called("calls") or what.called("to_apply"))[0]]
        return self._element(inner, inner.root, index, guess)

    def _parameter(self, where: Computation, what: Instruction, index: int | None, guess: _Guess | None) -> int | None:
        if guess and (where.name, index) == (guess.computation, guess.index):
            return guess.value
        callers = self.callers.get(where.name, [])
        if len(callers) != 1:
            return None
        outer, caller = callers[0]
        if caller.opcode == "while":
            return self._loop(outer, caller, index, guess)
        if caller.opcode not in ("fusion", "call"):
            return None
        return self._element(outer, outer.operand(caller, int(what.inside)), index, guess)

    def _loop(self, where: Computation, loop: Instruction, index: int | None, guess: _Guess | None) -> int | None:
        """An element of a loop's state, if no round of the loop changes it."""
        body = self.module.computations[loop.called("body")[0]]
        root, unchanged = body.root, False
        if index is not None and root.opcode == "tuple":
            element = body.operand(root, index)
            while element.opcode in _PASSES_ON:
                element = body.operand(element, 0)
            unchanged = (
                element.opcode == "get-tuple-element"
                and int(element.attribute("index")) == index
                and body.operand(element, 0).opcode == "parameter"
            )
        return self._element(where, where.operand(loop, 0), index, guess) if unchanged else None


def _scalar_elements(condition: Computation) -> list[int | None]:
    """Which elements of the loop's state the condition reads that could count rounds."""
    state = condition.parameters[0]
    if not state.shape.startswith("("):
        return [None] if _is_counter(state) else []
    return [
        int(user.attribute("index"))
        for user, _ in condition.users[state.name]
        if user.opcode == "get-tuple-element" and _is_counter(user)
    ]


def _is_counter(instruction: Instruction) -> bool:
    return len(instruction.arrays) == 1 and re.match(r"[su]\d+\[\]", instruction.shape) is not None


def _count(first: int, step: int, direction: str, bound: int) -> int | None:
    """Rounds of `for (i = first; i direction bound; i += step)`; None if it would not end."""
    if direction in ("GT", "GE"):
        first, step, bound, direction = -first, -step, -bound, {"GT": "LT", "GE": "LE"}[direction]
    if direction == "NE":
        rounds, rest = divmod(bound - first, step) if step else (0, 1)
        return rounds if rest == 0 and rounds >= 0 else None
    bound += direction == "LE"
    if first >= bound:
        return 0
    return -(-(bound - first) // step) if step > 0 else None
