"""The text form of a plan: marks, writing, and reading that says what is wrong.

    <think>The owl stands left of the lamp.</think><layout><cell 0><cell 1> ... 64 cells ... </layout>

The CoT reader is lenient, for models break off their thoughts; the layout reader is strict, for a layout that
is not 64 cells says nothing about where things go. Read next: `macro/sentence/plan.py`.
"""

import re

from macro.sentence.grid import SIDE, SUBJECTS
from macro.utils.errors import UserError

THINK, END_THINK = "<think>", "</think>"
LAYOUT, END_LAYOUT = "<layout>", "</layout>"
CELL_MARKS = tuple(f"<cell {n}>" for n in range(SUBJECTS + 1))
_MARK = re.compile(r"</?think>|</?layout>|<cell \d+>")


def refuse_marks(cot: str) -> None:
    """Raises UserError where a CoT holds a mark of the text form, which could not be read back."""
    mark = _MARK.search(cot)
    if mark:
        raise UserError(f"plan cot: holds the mark {mark[0]}, which has a meaning of its own; leave it out")


def write_think(cot: str) -> str:
    return f"{THINK}{cot}{END_THINK}"


def read_think(text: str) -> str:
    """The CoT of a text: from `<think>` (or the start) to `</think>` (or the end), without marks."""
    inside = text.split(THINK, 1)[-1].split(END_THINK, 1)[0]
    return _MARK.sub("", inside)


def write_plan_text(cot: str, cells: list[int] | None) -> str:
    """`cells` are the grid's 64 numbers, row by row, or None for a plan without a layout."""
    if cells is None:
        return write_think(cot)
    return write_think(cot) + LAYOUT + "".join(CELL_MARKS[n] for n in cells) + END_LAYOUT


def read_plan_text(text: str) -> tuple[str, list[int] | None]:
    """The CoT and the 64 cell numbers (None: no layout) of a plan's text form.

    Space between the marks is allowed, as people and judges put it there.

    Raises:
        UserError: a missing mark, something else than cells in the layout, not 64 cells, no such subject.
    """
    if not text.lstrip().startswith(THINK):
        raise UserError(f"plan text: must start with {THINK}")
    if END_THINK not in text:
        raise UserError(f"plan text: {END_THINK} is missing after the thought")
    thought, rest = text.split(END_THINK, 1)
    cot, rest = thought.split(THINK, 1)[1], rest.strip()
    if not rest:
        return cot, None
    if not rest.startswith(LAYOUT) or not rest.endswith(END_LAYOUT):
        raise UserError(f"plan text: after {END_THINK} only {LAYOUT} 64 cells {END_LAYOUT} may follow")
    layout = rest[len(LAYOUT) : -len(END_LAYOUT)]
    strange = re.sub(r"<cell \d+>|\s", "", layout)
    if strange:
        raise UserError(
            f"plan text: {strange[:20]!r} in the layout, where only <cell 0>..<cell {SUBJECTS}> may stand"
        )
    cells = [int(n) for n in re.findall(r"<cell (\d+)>", layout)]
    if len(cells) != SIDE * SIDE:
        raise UserError(f"plan text: {len(cells)} cells in the layout, but it must be {SIDE * SIDE}")
    absent = [n for n in cells if n > SUBJECTS]
    if absent:
        raise UserError(f"plan text: <cell {absent[0]}> names no subject; they go from 1 to {SUBJECTS}")
    return cot, cells
