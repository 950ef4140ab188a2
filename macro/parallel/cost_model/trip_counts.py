"""The trip count of a compiled loop, read from the program's text.

XLA on CPU prints the count (`known_trip_count`), XLA on TPU does not. `scan`, `map` and `fori_loop` of JAX count from a
constant by 1 while below another constant, which XLA keeps in the loop's condition: such loops are recognised,
any other has no known count. Read next: `macro/parallel/cost_model/cost_analysis.py`.
"""

import re

from macro.parallel.cost_model.hlo import Computation, Instruction, Module

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_COPIES = {"copy", "bitcast", "convert", "reshape", "copy-start", "copy-done", "opt-barrier", "optimization-barrier"}


def trip_count(module: Module, where: Computation, loop: Instruction) -> int | None:
    """How often the body of the `while` instruction of `where` runs; None if it cannot be determined."""
    if known := _KNOWN.search(loop.attributes):
        return int(known[1])
    condition, body = (module.computations[loop.called(key)[0]] for key in ("condition", "body"))
    test, compared = _scalar(module, condition, condition.root)
    state = where.operand(loop, 0)
    if test.opcode != "compare" or test.attribute("direction") != "LT" or state.opcode != "tuple":
        return None
    counter, bound = compared
    if counter.opcode != "get-tuple-element" or body.root.opcode != "tuple":
        return None
    index = counter.attribute("index")
    step, added = _scalar(module, body, body.operand(body.root, int(index)))
    first, _ = _scalar(module, where, where.operand(state, int(index)))
    ends = _integer(first), _integer(bound)
    by_one = step.opcode == "add" and {x.attribute("index") or x.inside for x in added} == {index, "1"}
    return max(0, ends[1] - ends[0]) if by_one and None not in ends else None


def _scalar(module: Module, where: Computation, what: Instruction) -> tuple[Instruction, list[Instruction]]:
    """The instruction that computes a scalar, and those of its operands, both looked up through copies and a fusion.

    Operands that are parameters of the fusion are followed out of it, into `where`.
    """
    what, inner = _source(where, what), where
    given = what.operands
    if what.opcode == "fusion":
        inner = module.computations[what.called("calls")[0]]
        what = _source(inner, inner.root)
    operands = [_source(inner, inner[name]) for name in what.operands]
    return what, [
        _source(where, where[given[int(x.inside)]]) if inner is not where and x.opcode == "parameter" else x
        for x in operands
    ]


def _source(where: Computation, what: Instruction) -> Instruction:
    while what.opcode in _COPIES:
        what = where.operand(what, 0)
    return what


def _integer(what: Instruction) -> int | None:
    return int(what.inside) if what.opcode == "constant" and re.fullmatch(r"-?\d+", what.inside) else None
