"""What a model may write as a plan: the text form of `macro/sentence/plan.py` as a small automaton.

    [bos] <think>        given
    chain of thought     any printable text without '<', until it closes itself with </think>; when its tokens
                         are used up, only what brings </think> nearer
    <layout>             given
    64 cells             background or a subject that exists
    </layout> [eos]      given

`</think>` is ordinary text, which a tokenizer may cut anywhere, also together with the letters before it. So
the automaton counts *characters* of `</think>` written so far, and a table says for every token where it
leads: to another count, to 8 (closed), or nowhere. The decoder (`plan.py`) carries the tables as arrays.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int8

from macro.sentence.layout import GRID_SIZE
from macro.sentence.plan import END_THINK, THINK

CLOSED = len(END_THINK)
CELL = -1  # in `tail`: a cell, free to choose
# A chain of thought at its limit ends within this many tokens: one that ends in '<', then letter by letter.
SLACK = CLOSED


def plan_rules(tokenizer, vocabulary: int, subjects: int) -> dict[str, np.ndarray]:
    """The tables of one tokenizer.

    Args:
        tokenizer: see `macro/inputs/tokenizer.py`.
        vocabulary: how many logits the model has; ids that the tokenizer does not know are never written.
        subjects: how many subjects there are; without any the plan has no grid.

    Returns:
        `prefix` int32[p], `tail` int32[q] (CELL where free), `cells` bool[v], `moves` int8[8, v]: the count
        after writing each token at each count, -1 where it may not be written.
    """
    cells = np.zeros(vocabulary, bool)
    cells[[tokenizer.cells[n] for n in range(subjects + 1)]] = True
    layout = [tokenizer.layout_start, *[CELL] * GRID_SIZE**2, tokenizer.layout_end] if subjects else []
    return {
        "prefix": np.array([tokenizer.bos, *tokenizer.encode(THINK)], np.int32),
        "tail": np.array([*layout, tokenizer.eos], np.int32),
        "cells": cells,
        "moves": _moves(tokenizer, vocabulary),
    }


def rules_of_rows(rules: Sequence[Mapping[str, np.ndarray]], candidates: int) -> dict[str, np.ndarray]:
    """The tables for several sentences with as many candidates each: `cells` and `tail` have a row for every one.

    `ends` int32[rows] is how many tokens of its `tail` each has.
    """
    longest = max(table["tail"].size for table in rules)
    tails = [np.pad(table["tail"], (0, longest - table["tail"].size)) for table in rules]
    of_rows = {"cells": [table["cells"] for table in rules], "tail": tails, "ends": [r["tail"].size for r in rules]}
    whole = {name: rules[0][name] for name in ("prefix", "moves")}
    return whole | {name: np.repeat(np.stack(values), candidates, axis=0) for name, values in of_rows.items()}


def _moves(tokenizer, vocabulary: int) -> Int8[np.ndarray, "8 v"]:
    moves = np.full((CLOSED, vocabulary), -1, np.int8)
    marks = {tokenizer.bos, tokenizer.eos, tokenizer.image_start, tokenizer.image_end}
    marks |= {tokenizer.layout_start, tokenizer.layout_end, *tokenizer.cells}
    for token in range(min(vocabulary, tokenizer.vocab_size)):
        piece = "" if token in marks else tokenizer.decode([token])
        if piece and piece.replace("\n", "").isprintable():
            moves[:, token] = [_write(piece, count) for count in range(CLOSED)]
    return moves


def _write(piece: str, count: int) -> int:
    """The count of `</think>`'s characters after `piece`, or -1 if it may not stand here."""
    for letter in piece:
        if count == CLOSED:
            return -1
        if letter == END_THINK[count]:
            count += 1
        elif count:  # a '<' that does not go on to </think>
            return -1
    return count
