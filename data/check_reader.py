"""Reads English about an image as a stranger would: what is named, in which colour, where, and in which relation.

Nothing here comes from the code that writes the texts: the words below are the checker's own, the nouns are those that
the data set names. A text becomes clauses, and a clause a list of items: mentions, relations, places, counts, colours.
Read next: `check_clauses.py` (what a clause states), `check_sight.py` (what the image shows), `check.py`.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence

from data.check_clauses import Clause, Mention, Word, state

COLOURS = (
    "red", "orange", "yellow", "lime", "green", "teal", "cyan", "blue", "navy", "purple", "pink", "brown", "white",
    "grey", "black",
)  # fmt: skip
_SPELT = {"gray": "grey", "violet": "purple", "turquoise": "teal"}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "leftmost": 1, "rightmost": -1}
_ANYTHING = {"things", "thing", "figures", "figure", "subjects", "subject", "objects", "object", "items", "item"}
_DETERMINERS = {"a", "an", "the", "another", "this", "that"}
_ADJECTIVES = {
    "speckled", "striped", "checked", "dotted", "spotted", "plain", "patterned", "mostly", "small", "little", "tiny",
    "big", "large", "tall", "short", "pale", "light", "dark", "bright", "mint", "lilac", "evening", "clear", "wide",
    "open", "sandy", "sunny", "cloudy", "same", "other", "whole",
}  # fmt: skip
_GROUNDS = {
    "sand", "snow", "grass", "stone", "sky", "skies", "ground", "floor", "hills", "hill", "meadow", "field", "plaza",
    "beach", "desert", "horizon", "light", "cloth", "scenery", "backdrop", "background", "wall", "water", "night",
    "noon", "place",
}  # fmt: skip
_PHRASES = {
    "left of": "left of; to the left of; on the left of; at the left of; on the left side of; to the left side of",
    "right of": "right of; to the right of; on the right of; at the right of; on the right side of",
    "in front of": "in front of; before; ahead of",
    "behind": "behind; in back of; at the back of; further back than",
    "next to": "next to; beside; alongside; by the side of; close to",
    "on": "on top of; on; upon; atop",
    "under": "under; underneath; beneath; below",
    "above": "above; over",
    "between": "between; in between",
    "far from": "far from; far away from; a long way from",
    "hides": "hides part of; partly hides; hides; covers part of; partly covers; covers; partly in front of",
    "hidden by": "partly behind; partly hidden by; hidden by; half hidden by; partly covered by; covered by",
    "larger than": "larger than; bigger than",
    "smaller than": "smaller than",
}
_RELATIONS = {tuple(p.split()): name for name, phrases in _PHRASES.items() for p in phrases.split("; ")}
_ROWS = {"upper": "upper", "top": "upper", "lower": "lower", "bottom": "lower"}
_COLUMNS = {"left": "left", "right": "right", "centre": "centre", "center": "centre", "middle": "centre"}
_FAR = {("far", "back"), ("in", "the", "background"), ("in", "the", "distance"), ("in", "the", "back")}
_NEAR = {("near",), ("in", "the", "foreground"), ("up", "close"), ("at", "the", "front")}
_LINES = {("from", "left", "to", "right"): "left of", ("from", "right", "to", "left"): "right of"}
_TOKEN = re.compile(r"<image \d+>|[a-z][\w'-]*|\d+|[.,;:?!]")
# What a relation may be followed by that is no thing in the image.
_NO_THING = {
    "camera",
    "viewer",
    "scene",
    "image",
    "picture",
    "others",
    "rest",
    "frame",
    "one",
    "it",
    "them",
    "left",
    "right",
}
# Images that lend cloth, place or light show no subject; nor does a list of the views of one place.
_LENT = re.compile(
    r"(?:wearing )?(?:the )?(?:cloth|scenery|place|light|style|look)(?: is)?(?: that| the one)? (?:of|in|from) "
    r"<image \d+>"
    r"|(?:all )?(?:lit )?as in <image \d+>"
)


class Reader:
    """Reads texts that may name things of the given kinds ("ice cream")."""

    def __init__(self, kinds: Iterable[str]):
        self._nouns: dict[tuple[str, ...], tuple[str, bool]] = {}
        for kind in sorted(set(kinds)):
            *before, last = kind.lower().split()
            for plural in _plurals(last):
                self._nouns.setdefault((*before, plural), (kind, True))
            self._nouns[*before, last] = (kind, False)
        self._longest = max(map(len, self._nouns), default=1)

    def read(self, text: str) -> list[Clause]:
        """The clauses of a text, in order; it may have any case."""
        text = _LENT.sub(" ", text.lower())
        clauses = []
        for part in re.split(r"(?<=[.;?!])\s*", text):
            if part.strip(" .;?!"):
                clause = Clause(part.strip())
                clause.items = self._items(_TOKEN.findall(part))
                state(clause)
                clauses.append(clause)
        return clauses

    def _items(self, words: list[str]) -> list:
        items, at = [], 0
        while at < len(words):
            found, step = self._item(words, at)
            if items and getattr(items[-1], "sort", "") == "relation" and not isinstance(found, Mention):
                found, step = self._stranger(words, at) or (found, step)
            if found is not None:
                items.append(found)
            at += step
        return items

    def _stranger(self, words: list[str], at: int):
        """The object of a relation that the data set has no noun for: "left of the red zebra"; None if none is."""
        end = at
        while end < len(words) and (words[end] in _DETERMINERS | _ADJECTIVES or _colour(words[end])):
            end += 1
        stranger = end > at and end < len(words) and words[end].isalpha() and words[end] not in _NO_THING | _GROUNDS
        if not stranger:
            return None
        return Mention(" ".join(words[at : end + 1]), kind=words[end]), end + 1 - at

    def _item(self, words: list[str], at: int):
        """The item that starts at a word, and how many words it takes."""
        word = words[at]
        if word in ("and", ","):
            return Word("join", word), 1
        if word in (".", ";", "?", "!"):
            return None, 1
        if word in ("which", "that", "who") and at + 1 < len(words) and words[at + 1] in ("is", "stands", "sits"):
            return Word("which"), 1
        if found := _known(words, at, "line", _LINES, "far", _FAR):
            return found
        if place := _place(words, at):
            return place
        if tuple(words[at : at + 1]) == ("near",) and self._noun_phrase(words, at + 1)[0] is not None:
            return Word("relation", "near", "near"), 1
        if found := _known(words, at, "relation", _RELATIONS, "near", _NEAR):
            return found
        if count := self._count(words, at):
            return count
        found, step = self._noun_phrase(words, at)
        if found is not None:
            return found, step
        return Word("word", word), 1

    def _count(self, words: list[str], at: int):
        """A count: "three things", "two red dogs", "exactly one cat"."""
        number = NUMBERS.index(words[at]) if words[at] in NUMBERS else int(words[at]) if words[at].isdigit() else None
        if number is None or at + 1 == len(words):
            return None
        if words[at + 1] in _ANYTHING:
            return Word("count", (number, None, ())), 2
        colours, end = [], at + 1
        while end < len(words) and (words[end] in _ADJECTIVES or _colour(words[end])):
            colours += filter(None, [_colour(words[end])])
            end += 1
        kind, plural, length = self._noun(words, end)
        exact = at and words[at - 1] == "exactly"
        if kind and (exact or (plural and number != 1) or (words[at] in NUMBERS and number > 1)):
            return Word("count", (number, kind, tuple(colours))), end + length - at
        return None

    def _noun(self, words: list[str], at: int) -> tuple[str | None, bool, int]:
        for length in range(self._longest, 0, -1):
            if found := self._nouns.get(tuple(words[at : at + length])):
                return *found, length
        return None, False, 0

    def _noun_phrase(self, words: list[str], at: int):
        """A mention, a ground or sky ("setting"), or a colour by itself; (None, 0) if none starts here."""
        end, numbers, colours, ordinal, across = at, [], [], None, None
        while end < len(words):
            word = words[end]
            if word.startswith("<image"):
                numbers.append(int(word[7:-1]))
            elif colour := _colour(word):
                colours.append(colour)
            elif word in _ORDINALS:
                across = word
            elif word.isdigit() and ordinal is None and not numbers and not colours:
                ordinal = int(word)
            elif word == "and" and colours and end + 1 < len(words) and _colour(words[end + 1]):
                pass
            elif word not in _DETERMINERS | _ADJECTIVES and (word != "subject" or not _digit(words, end + 1)):
                break
            end += 1
        kind, _, length = self._noun(words, end)
        text = " ".join(words[at : end + length])
        if kind:
            end, more = _images_after(words, end + length)
            side = tuple(words[end : end + 3])
            counted = side in (("from", "the", "left"), ("from", "the", "right"))
            end += 3 * counted
            order = _ORDINALS.get(across) if counted or across in ("leftmost", "rightmost") else None
            order = -order if counted and side[2] == "right" else order
            return Mention(text, (*numbers, *more), ordinal, tuple(colours), kind, order), end - at
        if end < len(words) and words[end] in _GROUNDS and not numbers:
            hills = words[end + 1 : end + 3] == ["with", "hills"]
            beyond = end + 1 + 2 * hills
            beyond += beyond < len(words) and words[beyond] in ("below", "above", "around")
            return Word("setting", words[end]), beyond - at
        if numbers:
            last = max(n for n in range(at, end) if words[n].startswith("<image"))
            return Mention(text, tuple(numbers)), last + 1 - at
        if ordinal is not None:
            return Mention(text, (), ordinal), end - at
        return (Word("colour", tuple(colours)), end - at) if colours else (None, 0)


def _colour(word: str) -> str | None:
    word = _SPELT.get(word, word)
    return word if word in COLOURS else None


def _digit(words: Sequence[str], at: int) -> bool:
    return at < len(words) and words[at].isdigit()


def _plurals(word: str) -> list[str]:
    out = [f"{word}s", f"{word}es"]
    for end, many in (("y", "ies"), ("man", "men"), ("us", "i"), ("fe", "ves"), ("f", "ves"), ("mouse", "mice")):
        if word.endswith(end):
            out.append(word[: -len(end)] + many)
    return out


def _images_after(words: Sequence[str], at: int) -> tuple[int, list[int]]:
    """The images of "... of <image 1>, <image 2> and <image 3>" after a noun; where the phrase ends."""
    numbers: list[int] = []
    if at + 1 < len(words) and words[at] in ("of", "from", "in") and words[at + 1].startswith("<image"):
        at += 1
        while at < len(words) and words[at].startswith("<image"):
            numbers.append(int(words[at][7:-1]))
            at += 1
            while at + 1 < len(words) and words[at] in (",", "and") and words[at + 1].startswith("<image"):
                at += 1
    return at, numbers


def _known(words: Sequence[str], at: int, name: str, meanings: Mapping, depth: str, marks: Container):
    """The longest phrase that starts at a word and is in `meanings` (an item `name`) or `marks` (a depth), and its
    length."""
    for length in range(4, 0, -1):
        key = tuple(words[at : at + length])
        if key in meanings:
            return Word(name, meanings[key], " ".join(key)), length
        if key in marks:
            return Word("depth", depth), length
    return None


def _place(words: Sequence[str], at: int):
    """A place in the image, "lower far right" or "at the upper left", unless "of" makes it a relation."""
    end = at
    while end < len(words) and words[end] in ("at", "in", "to", "on", "the"):
        end += 1
    led = end > at
    row = _ROWS.get(words[end]) if end < len(words) else None
    end += row is not None
    far = words[end : end + 1] == ["far"]
    end += far
    column = _COLUMNS.get(words[end]) if end < len(words) else None
    if column is None:
        if row is None or far or not led or words[end : end + 1] == ["of"]:
            return None
        return Word("place", (row, None)), end - at
    end += 1
    end += words[end : end + 1] in (["corner"], ["side"], ["edge"])
    if words[end : end + 1] == ["of"]:
        return None
    return Word("place", (row or "level", f"far {column}" if far else column)), end - at
