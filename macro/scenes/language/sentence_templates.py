"""The next sentence of an instruction: each move introduces one to four new subjects by true claims.

    pair      robot left of tree; left of tree is robot        between   car between robot and tree
    fan       robot left of tree and behind car                joint     robot and tree behind car
    chain     robot left of tree, which is behind car          row       from left to right robot, tree, car

A move is chosen at random among those whose claims are in the truth and that mention new subjects in the order
of their numbers. A subject on a support is always mentioned together with it. Read next: `lexicon.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from macro.scenes.language.lexicon import RELATION_WEIGHTS
from macro.sentence.spans import Truth

# Weight of each kind of move where it is possible.
_WAYS = {"pair": 1.0, "fan": 0.6, "chain": 0.4, "joint": 0.5, "row": 0.4, "between": 0.6, "lone": 1.0}

Claim = tuple[int, str, int | tuple[int, int]]


@dataclass(frozen=True)
class Move:
    """The content of one sentence.

    Attributes:
        way: a key of `_WAYS`.
        subjects: the numbers of its subjects.
        where: its predicate: numbers, names of relations, and joining words.
        claims: the relations that must hold, as in `Truth.relations`.
        weight: its weight among moves of its way.
        inverted: whether the place precedes the subject.
    """

    way: str
    subjects: tuple[int, ...]
    where: tuple[int | str, ...]
    claims: tuple[Claim, ...]
    weight: float = 1.0
    inverted: bool = False

    @property
    def mentions(self) -> tuple[int, ...]:
        """Subject numbers in the order of mention."""
        places = tuple(word for word in self.where if isinstance(word, int))
        return places + self.subjects if self.inverted else self.subjects + places


def choose_move(truth: Truth, said: int, rng: np.random.Generator, mute: frozenset[int] = frozenset()) -> Move:
    """The next sentence, after subjects 1..said have been mentioned and at least one has not.

    Those in `mute` cannot be mentioned again.
    """
    known = _Known(truth)
    every = [
        *_pairs(known, said), *_fans(known, said), *_chains(known, said), *_joints(known, said),
        *_rows(known, said), *_betweens(known, said),
    ]  # fmt: skip
    moves = [
        move
        for move in every
        if _in_turn(move.mentions, said) and known.tells_on(move, said) and not _repeats(move.mentions, said, mute)
    ]
    moves = moves or [Move("lone", (said + 1,), (), ())]
    # First the way, then the move: otherwise a way with many moves would dominate. One that
    # has only moves of low weight keeps a low weight.
    total: dict[str, float] = {}
    for move in moves:
        total[move.way] = total.get(move.way, 0.0) + move.weight
    odds = np.array([_WAYS[move.way] * move.weight / max(total[move.way], 1.0) for move in moves])
    return moves[int(rng.choice(len(moves), p=odds / odds.sum()))]


class _Known:
    """The truth's relations, by subject."""

    def __init__(self, truth: Truth):
        self.count = len(truth.kinds)
        self.of: dict[int, list[tuple[str, int]]] = {n: [] for n in range(1, self.count + 1)}
        self.between: list[tuple[int, int, int]] = []
        for i, name, j in truth.relations:
            if name == "between":
                self.between.append((i, *j))
            elif name in RELATION_WEIGHTS:
                self.of[i].append((name, j))

    def holds(self, i: int, name: str, j: int) -> bool:
        return (name, j) in self.of.get(i, ())

    def tells_on(self, move: Move, said: int) -> bool:
        """Whether the move claims all "on" relations between new and mentioned subjects."""
        present = {*range(1, said + 1), *move.mentions}
        return all(
            (i, "on", j) in move.claims
            for i in present
            for name, j in self.of[i]
            if name == "on" and j in present and max(i, j) > said
        )


def _in_turn(mentions: tuple[int, ...], said: int) -> bool:
    """Whether new subjects, at least one, are mentioned as said + 1, said + 2, ..."""
    new = [n for n in dict.fromkeys(mentions) if n > said]
    return bool(new) and new == list(range(said + 1, said + 1 + len(new)))


def _repeats(mentions: tuple[int, ...], said: int, mute: frozenset[int]) -> bool:
    """Whether a mute subject would be mentioned a second time."""
    return any(n in mute and (n <= said or mentions.count(n) > 1) for n in mentions)


def _near(i: int, j: int) -> float:
    """Weight by nearness in number: consecutive subjects are neighbours on the ground."""
    return 1.0 / abs(i - j)


def _pairs(known: _Known, said: int) -> Iterator[Move]:
    for i in range(1, min(said + 1, known.count) + 1):
        for name, j in known.of[i]:
            if max(i, j) <= said or not (_in_turn((i, j), said) or _in_turn((j, i), said)):
                continue
            weight, claims = RELATION_WEIGHTS[name] * _near(i, j), ((i, name, j),)
            yield Move("pair", (i,), (name, j), claims, weight)
            if i == said + 1 and j <= said:
                yield Move("pair", (i,), (name, j), claims, weight / 2, inverted=True)


def _fans(known: _Known, said: int) -> Iterator[Move]:
    i = said + 1
    for name, j in known.of[i]:
        for other, k in known.of[i]:
            if name != other and j != k and _in_turn((i, j, k), said):
                weight = RELATION_WEIGHTS[name] * _near(i, j) * RELATION_WEIGHTS[other] * _near(i, k)
                claims = ((i, name, j), (i, other, k))
                yield Move("fan", (i,), (name, j, "and", other, k), claims, weight)


def _chains(known: _Known, said: int) -> Iterator[Move]:
    i, j = said + 1, said + 2
    for name in (name for name, neighbour in known.of[i] if neighbour == j):
        for other, k in known.of[j]:
            if k != i:
                weight = RELATION_WEIGHTS[name] * RELATION_WEIGHTS[other] * _near(j, k)
                where = (name, j, ", which is", other, k)
                yield Move("chain", (i,), where, ((i, name, j), (j, other, k)), weight)


def _joints(known: _Known, said: int) -> Iterator[Move]:
    i, j = said + 1, said + 2
    for name, k in known.of[i]:
        if known.holds(j, name, k):
            weight = RELATION_WEIGHTS[name] * _near(i, k)
            yield Move("joint", (i, j), (name, k), ((i, name, k), (j, name, k)), weight)


def _rows(known: _Known, said: int) -> Iterator[Move]:
    for length in (3, 4):
        row = tuple(range(said + 1, said + length + 1))
        for name, way in (("left of", "from left to right"), ("right of", "from right to left")):
            claims = tuple((i, name, i + 1) for i in row[:-1])
            if all(known.holds(*claim) for claim in claims):
                yield Move("row", row, (way,), claims)


def _betweens(known: _Known, said: int) -> Iterator[Move]:
    for i, j, k in known.between:
        where, claims = ("between", j, "and", k), ((i, "between", (j, k)),)
        weight = _near(i, j) * _near(i, k)
        yield Move("between", (i,), where, claims, weight)
        if i == said + 1:
            yield Move("between", (i,), where, claims, weight / 2, inverted=True)
