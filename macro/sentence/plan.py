"""A plan as data: a chain of thought (CoT) that describes what to draw, and an 8 x 8 layout of where.

MUSIC (arXiv 2604.07422): `f1(instruction, references) -> (CoT, layout)`; `f2` draws the image from them.
A plan can be printed, edited, saved, loaded and passed back in. Its forms (all but the image can be read back):

    tokens    <think>The owl stands left of ...</think> as text; <layout>, 64 cells, </layout> as single ids
    JSON      {"cot": "...", "grid": [[0, 0, 1, ...], ...] or null}
    image     the grid in colours with the CoT beside it, for people

Read next: `macro/sentence/spans.py`, `macro/inputs/tokenizer.py`.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int8, UInt8

from macro.sentence.layout import GRID_SIZE, MAX_SUBJECTS, validate_grid
from macro.utils.errors import UserError

THINK, END_THINK = "<think>", "</think>"
_MARK = re.compile(r"</?think>|</?layout>|<cell \d+>")


def validate_cot(cot: str) -> None:
    """Raises UserError if a CoT contains a mark of the token form, as it could not be read back."""
    if mark := _MARK.search(cot):
        raise UserError(f"plan cot: contains the mark {mark[0]}, which is reserved; leave it out")


def wrap_think(cot: str) -> str:
    """The CoT between its marks."""
    return f"{THINK}{cot}{END_THINK}"


def parse_think(text: str) -> str:
    """The CoT in a text: from `<think>` (or the start) to `</think>` (or the end), without the marks."""
    inside = text.split(THINK, 1)[-1].split(END_THINK, 1)[0]
    return _MARK.sub("", inside)


@runtime_checkable
class PlanTokenizer(Protocol):
    """The interface that a plan needs of a tokenizer (`macro/inputs/tokenizer.py` implements it)."""

    bos: int
    eos: int
    layout_start: int
    layout_end: int
    cells: Sequence[int]  # of 13 labels

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True, eq=False)
class Plan:
    """A chain of thought and a layout.

    Attributes:
        cot: a description of the image; may be empty, but must not contain the marks `<think>`, `<layout>`.
        grid: int8[8, 8], row 0 on top, 0 = background, n = n-th subject; None without a layout.
    """

    cot: str
    grid: Int8[np.ndarray, "8 8"] | None = None

    def __post_init__(self):
        validate_cot(self.cot)
        if self.grid is not None:
            object.__setattr__(self, "grid", validate_grid(self.grid))

    def __eq__(self, other) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self.cot == other.cot and np.array_equal(self.grid, other.grid)

    def __hash__(self) -> int:
        return hash((self.cot, None if self.grid is None else self.grid.tobytes()))

    @property
    def named(self) -> tuple[int, ...]:
        """The subjects with at least one cell, in ascending order."""
        return () if self.grid is None else tuple(int(n) for n in np.unique(self.grid) if n)

    def tokens(self, tokenizer: PlanTokenizer) -> list[int]:
        """The plan's token ids, without bos and eos: the CoT with its marks as ordinary text, then the layout."""
        ids = list(tokenizer.encode(wrap_think(self.cot)))
        if self.grid is None:
            return ids
        cells = [tokenizer.cells[n] for n in self.grid.ravel()]
        return [*ids, tokenizer.layout_start, *cells, tokenizer.layout_end]

    @classmethod
    def from_tokens(cls, ids: Iterable[int], tokenizer: PlanTokenizer) -> "Plan":
        """The inverse of `tokens`; bos and eos around it are optional.

        Lenient about the CoT, which a model may leave unfinished, strict about the layout.

        Raises:
            UserError: the layout is not 64 cells between its marks.
        """
        ids = [int(i) for i in ids if i not in (tokenizer.bos, tokenizer.eos)]
        if tokenizer.layout_start not in ids:
            return cls(parse_think(tokenizer.decode(ids)))
        start = ids.index(tokenizer.layout_start)
        label = {token: n for n, token in enumerate(tokenizer.cells)}
        layout = ids[start + 1 :]
        cells = [label[i] for i in layout if i in label]
        if len(cells) != GRID_SIZE * GRID_SIZE or layout[GRID_SIZE * GRID_SIZE :] != [tokenizer.layout_end]:
            raise UserError(
                f"plan tokens: {len(cells)} cells in {len(layout)} tokens after <layout>, "
                f"but exactly {GRID_SIZE * GRID_SIZE} cells and </layout> must follow"
            )
        return cls(parse_think(tokenizer.decode(ids[:start])), np.array(cells, np.int8).reshape(GRID_SIZE, GRID_SIZE))

    def to_json(self) -> str:
        """JSON with one grid row per line, so that it is easy to edit."""
        rows = "null"
        if self.grid is not None:
            rows = "[\n    " + ",\n    ".join(json.dumps(row) for row in self.grid.tolist()) + "\n  ]"
        return f'{{\n  "cot": {json.dumps(self.cot, ensure_ascii=False)},\n  "grid": {rows}\n}}\n'

    @classmethod
    def from_json(cls, text: str, subjects: int = MAX_SUBJECTS, source: str = "plan") -> "Plan":
        """Reads a plan, checking every field, since it may be written by hand.

        Args:
            text: `{"cot": str, "grid": 8 rows of 8 whole numbers, or null}`.
            subjects: number of subjects in the sentence.
            source: file name for error messages.

        Raises:
            UserError: no JSON, a missing, unknown or ill-typed field, a grid that is not 8 x 8 or has a subject
                that the sentence lacks.
        """
        try:
            record = json.loads(text)
        except ValueError as error:
            raise UserError(f"{source}: not JSON ({error}); mend or replace it") from None
        if not isinstance(record, dict) or not isinstance(record.get("cot"), str):
            raise UserError(f'{source}: must be {{"cot": "words", "grid": 8 rows of 8 numbers, or null}}')
        unknown = sorted(set(record) - {"cot", "grid"})
        if unknown:
            raise UserError(f"{source}: unknown field {unknown[0]!r}; a plan has cot and grid only")
        try:
            grid = record.get("grid")
            return cls(record["cot"], None if grid is None else validate_grid(grid, subjects))
        except UserError as error:
            raise UserError(f"{source}: {error}") from None

    def image(self, size: int = 512) -> UInt8[np.ndarray, "h w 3"]:
        """The plan as an image: the grid, `size` pixels square, and to its right the CoT on a panel of that size.

        A plan without a grid, or without a CoT, is one panel only.
        """
        panels = [] if self.grid is None else [_draw_grid(self.grid, size)]
        if self.cot.strip() or self.grid is None:
            panels.append(_draw_words(self.cot, size))
        return np.concatenate(panels, axis=1)


def _draw_grid(grid: Int8[np.ndarray, "8 8"], size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Coloured cells, each with its subject's number, and dark lines between different subjects."""
    from PIL import Image, ImageDraw

    from macro.utils.images import LABEL_COLOURS, font, resize

    cell = -(-2 * size // GRID_SIZE)  # drawn at twice the size and scaled down, for smooth digits and lines
    side = GRID_SIZE * cell
    canvas = Image.fromarray(LABEL_COLOURS[grid.repeat(cell, 0).repeat(cell, 1)])
    draw = ImageDraw.Draw(canvas)
    fine, bold = max(1, cell // 40), max(2, cell // 16)
    for at in range(cell, side, cell):
        draw.line([(at, 0), (at, side)], "white", fine)
        draw.line([(0, at), (side, at)], "white", fine)
    for row, column in np.ndindex(GRID_SIZE, GRID_SIZE):
        x, y, label = column * cell, row * cell, grid[row, column]
        if column and label != grid[row, column - 1]:
            draw.line([(x, y - bold // 2), (x, y + cell + bold // 2)], "#3c4048", bold)
        if row and label != grid[row - 1, column]:
            draw.line([(x - bold // 2, y), (x + cell + bold // 2, y)], "#3c4048", bold)
        if label:
            draw.text(
                (x + cell / 2, y + cell / 2), str(label), "#2a2d33", font(round(cell * 0.42)), anchor="mm"
            )
    return resize(np.array(canvas), (size, size))


def _draw_words(words: str, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Text on a white panel, in the largest type that fits; at the smallest size the rest is cut off."""
    from PIL import Image, ImageDraw

    from macro.utils.images import font, wrap

    margin, smallest = size // 16, 10
    for height in range(max(smallest, size // 20), smallest - 1, -1):
        face, step = font(height), round(height * 1.45)
        lines = wrap(words, face, size - 2 * margin)
        room = (size - 2 * margin) // step
        if len(lines) <= room:
            break
    if len(lines) > room:
        lines = [*lines[: room - 1], "..."]
    canvas = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        draw.text((margin, margin + i * step), line, "#2a2d33", face)
    return np.array(canvas)
