"""Yes/no questions about an image with exact answers, half of them yes and half no.

"No" never means "unclear": a false relation is one whose opposite is in the truth (left for right, before
for behind, the lower one on the upper), a false kind is absent from the image, a false colour is far from all
of the subject's. Read next: `annotate.py` (the truth they ask about).
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from macro.scenes.assets.catalog import KINDS
from macro.scenes.assets.palettes import COLOURS, CONFUSABLE, colour_distance
from macro.scenes.ground_truth.annotate import visible_truth
from macro.scenes.ground_truth.relations import OPPOSITE
from macro.scenes.language.lexicon import (
    NUMBERS,
    PHRASES,
    a_or_an,
    colour_words,
    distinct_nouns,
    plain_nouns,
    plural,
)
from macro.sentence.spans import Truth

_TRIES = 8

Question = tuple[str, bool]


def ask(truth: Truth, rng: np.random.Generator, count: int = 6) -> tuple[Question, ...]:
    """Up to `count` different questions in random order about all that is visible, half of them yes (give or take one).

    Topics (presence, count, colour, sides, depth, on, between) take turns in random order.
    """
    facts = _Facts(visible_truth(truth))
    topics = [_TOPICS[i] for i in rng.permutation(len(_TOPICS))]
    answers = [bool(i) for i in (np.arange(count) + rng.integers(2)) % 2]
    asked: dict[str, bool] = {}
    for turn, answer in enumerate(answers):
        for attempt in range(len(topics) + _TRIES):
            found = topics[(turn + attempt) % len(topics)](facts, rng, answer)
            if found and found not in asked:
                asked[found] = answer
                break
    questions = list(asked.items())
    return tuple(questions[i] for i in rng.permutation(len(questions)))


class _Facts:
    """The ground truth for the topics: nouns that name one subject, and relations between nameable subjects."""

    def __init__(self, truth: Truth):
        self.truth = truth
        self.count = len(truth.kinds)
        self.kinds = Counter(truth.kinds)
        self.colours = colour_words(truth)
        self.plain = plain_nouns(truth)
        self.nouns = distinct_nouns(truth)
        self.pairs = [r for r in truth.relations if r[1] != "between" and self._nameable(r[0], r[2])]
        self.triples = [r for r in truth.relations if r[1] == "between" and self._nameable(r[0], *r[2])]

    def _nameable(self, *numbers: int) -> bool:
        return all(self.nouns[n - 1] for n in numbers)

    def the(self, number: int) -> str:
        return f"the {self.nouns[number - 1]}"


Topic = Callable[[_Facts, np.random.Generator, bool], str | None]


def _pick(rng: np.random.Generator, choices: list):
    return choices[int(rng.integers(len(choices)))] if choices else None


def _presence(facts: _Facts, rng: np.random.Generator, answer: bool) -> str | None:
    coloured = [f"{c} {k}" for c, k in zip(facts.colours, facts.truth.kinds, strict=True)]
    if rng.random() < 0.5:
        present, pool = set(facts.kinds), set(KINDS)
    else:
        present = set(coloured)
        # The other colour must not be close to one of the kind's own subjects.
        pool = {f"{c} {k}" for k in facts.kinds for c in COLOURS if all(
            _unlike(c, facts, n) for n in range(1, facts.count + 1) if facts.truth.kinds[n - 1] == k
        )}  # fmt: skip
    noun = _pick(rng, sorted(present if answer else pool - present))
    return noun and f"is there {a_or_an(noun)} in the image?"


def _counting(facts: _Facts, rng: np.random.Generator, answer: bool) -> str | None:
    have, kind, end = facts.count, "thing", " in all"
    if rng.random() < 0.6:
        kind = _pick(rng, sorted(facts.kinds))
        have, end = facts.kinds[kind], ""
    wrong = [n for n in range(max(1, have - 2), min(12, have + 2) + 1) if n != have]
    n = have if answer else _pick(rng, wrong)
    return f"is there exactly one {kind}{end}?" if n == 1 else f"are there {NUMBERS[n]} {plural(kind)}{end}?"


def _colour(facts: _Facts, rng: np.random.Generator, answer: bool) -> str | None:
    clear = [n for n in range(1, facts.count + 1) if facts.plain[n - 1] and len(facts.truth.colours[n - 1]) == 1]
    n = _pick(rng, clear)
    if n is None:
        return None
    colour = facts.colours[n - 1] if answer else _pick(rng, [c for c in COLOURS if _unlike(c, facts, n)])
    return colour and f"is the {facts.plain[n - 1]} mostly {colour}?"


def _unlike(colour: str, facts: _Facts, number: int) -> bool:
    """Whether a subject has no colour close to this one."""
    palette = [tuple(map(float, own)) for own in facts.truth.palettes[number - 1]]
    own = [*palette, *(COLOURS[name] for name in facts.truth.colours[number - 1])]
    return all(colour_distance(COLOURS[colour], each) > CONFUSABLE for each in own)


def _relating(*names: str) -> Topic:
    def topic(facts: _Facts, rng: np.random.Generator, answer: bool) -> str | None:
        found = _pick(rng, [r for r in facts.pairs if r[1] in names])
        if found is None:
            return None
        i, name, j = found
        phrase = _pick(rng, list(PHRASES[name if answer else OPPOSITE[name]]))
        return f"is {facts.the(i)} {phrase} {facts.the(j)}?"

    return topic


def _on(facts: _Facts, rng: np.random.Generator, answer: bool) -> str | None:
    """False ones: the lower on the upper, or two next to each other."""
    true = [(i, j) for i, name, j in facts.pairs if name == "on"]
    upturned = [(j, i) for i, j in true]
    apart = [(i, j) for i, name, j in facts.pairs if name in ("left of", "right of")]
    pair = _pick(rng, true if answer else upturned or apart)
    return pair and f"is {facts.the(pair[0])} on {facts.the(pair[1])}?"


def _between(facts: _Facts, rng: np.random.Generator, answer: bool) -> str | None:
    """False ones: an outer one between the others, or one with both others on the same side."""
    true = [(i, *pair) for i, _, pair in facts.triples]
    if answer:
        found = _pick(rng, true)
    else:
        left = {(i, j) for i, name, j in facts.pairs if name == "left of"}
        outer = [(i, j, k) for i, j in left for k in range(1, facts.count + 1) if k > j and (i, k) in left]
        found = _pick(rng, sorted(outer))
    if found is None:
        return None
    i, j, k = found
    return f"is {facts.the(i)} between {facts.the(j)} and {facts.the(k)}?"


_TOPICS: tuple[Topic, ...] = (
    _presence, _counting, _colour, _relating("left of", "right of"), _relating("in front of", "behind"),
    _on, _between,
)  # fmt: skip
