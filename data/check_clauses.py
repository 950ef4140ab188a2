"""What a clause of English states of the things it mentions: who stands in which relation to whom, and where.

The items of a clause (`check_reader.py`) are walked from left to right: a relation takes the group of mentions before
it and the mention after it; "which is" passes to the last mention; "behind the tree is a dog" has them the other way
round. What is left over, such as a relation without an object, is counted as unread.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

# Words that relate, when no relation could be read around them.
_CUES = {
    "left", "right", "behind", "front", "between", "beside", "under", "beneath", "above", "below", "atop",
}  # fmt: skip
# Verbs of an edit that takes its object away, and that puts another in its place.
_GONE = {
    "remove", "removes", "erase", "erases", "delete", "deletes", "goes", "leaves", "disappears", "vanishes", "rid",
    "clear",
}  # fmt: skip
_SWAPPED = {"replace", "replaces", "swap", "swaps", "exchange", "becomes"}
_INSTEAD = re.compile(r"\b(in place of|instead of|comes? for|takes? the place of)\b")


@dataclass(frozen=True)
class Mention:
    """A noun phrase: images by number, subject by number, colours, kind; what the text does not say is empty."""

    text: str
    numbers: tuple[int, ...] = ()
    ordinal: int | None = None
    colours: tuple[str, ...] = ()
    kind: str | None = None
    across: int | None = None  # the n-th from the left, -n from the right
    gone: bool = False  # the text takes it away, or speaks of how it was


@dataclass(frozen=True)
class Word:
    """Any other item of a clause: its sort ("relation", "place", "depth", "line", "count", ...) and what it says."""

    sort: str
    value: object = None
    text: str = ""


@dataclass(frozen=True)
class Statement:
    """What a clause says: `name` is a relation, "place", "depth", "count" or "colour" of `who` (to `other`)."""

    name: str
    who: Mention | None
    other: object
    text: str


@dataclass
class Clause:
    """A clause: its text, items in order, statements, and the words of relations that could not be read."""

    text: str
    items: list = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    unread: int = 0

    @property
    def mentions(self) -> list[Mention]:
        return [item for item in self.items if isinstance(item, Mention)]

    def of(self, sort: str) -> list:
        """Values of the items of one sort."""
        return [item.value for item in self.items if isinstance(item, Word) and item.sort == sort]


def _mark_gone(clause: Clause) -> None:
    """Marks mentions of what an edit takes away, and of what it repaints: they tell of the image before."""
    verbs, places = set(clause.of("word")), [n for n, item in enumerate(clause.items) if isinstance(item, Mention)]
    if clause.of("relation"):
        verbs -= {"goes"}  # "the cat goes left of the chair"
    gone = set(places) if verbs & _GONE or ("take" in verbs and verbs & {"away", "out", "off"}) else set()
    if verbs & _SWAPPED or {"turns", "into"} <= verbs:
        gone |= set(places[:1])
    if _INSTEAD.search(clause.text):
        gone |= set(places[-1:])
    repainted = bool(clause.of("colour"))
    for n in places:
        item = clause.items[n]
        colours = () if repainted and n not in gone else item.colours
        clause.items[n] = replace(item, colours=colours, gone=n in gone)


def state(clause: Clause) -> None:
    """Fills in the statements of a clause from its items, left to right."""
    _mark_gone(clause)
    walk = _Walk(clause)
    for n, item in enumerate(clause.items):
        if isinstance(item, Mention):
            walk.mention(item, n)
        else:
            getattr(walk, item.sort, walk.skip)(item)
    walk.end()


class _Walk:
    """Where a reader is in a clause: whom it is about, and which relation waits for its object."""

    def __init__(self, clause: Clause):
        self.clause = clause
        self.subjects: list[Mention] = []  # the group that the next relation is about
        self.open = False  # whether "and", "," may add to it
        self.joined = False  # whether the item before was "and" or ","
        self.pending: str | None = None  # a relation without its object
        self.objects: list[Mention] = []
        self.before: str | None = None  # a relation that came before whom it is about: "behind the tree is a dog"
        self.last: Mention | None = None
        self.which_is = False
        self.line_of: str | None = None
        self.name, self.about = "", []  # the last relation and whom it was about: "... left of the tree and the car"

    def say(self, name: str, who: Mention | None, other: object) -> None:
        self.clause.statements.append(Statement(name, who, other, self.clause.text))

    def mention(self, item: Mention, n: int) -> None:
        if self.pending is not None:
            self.objects.append(item)
            if self.pending != "between" or len(self.objects) == 2:
                self.related()
        elif self.before is not None:
            self.subjects = [item]
            self.emit(self.before, [item])
        elif self.joined and self.open:
            self.subjects.append(item)
        elif self.joined and self.objects and not self.open and self.objects[0] is not item and self.adds(n):
            self.emit(self.name, self.about, [item])
        else:
            self.subjects, self.open, self.objects = [item], True, []
        self.last, self.joined = item, False

    def adds(self, n: int) -> bool:
        """Whether the mention after "and" is one more object: the clause ends there, or a pause comes."""
        rest = self.clause.items[n + 1 :]
        return self.clause.items[n - 1].value == "and" and (
            not rest or (isinstance(rest[0], Word) and rest[0].sort in ("which", "setting"))
        )

    def related(self) -> None:
        name, self.pending = self.pending, None
        if self.subjects:
            self.name, self.about = name, list(self.subjects)
            self.emit(name, self.about)
        else:
            self.before = name

    def emit(self, name: str, about: Sequence[Mention], objects: Sequence[Mention] | None = None) -> None:
        objects = self.objects if objects is None else objects
        for who in about:
            if name == "between":
                self.say(name, who, tuple(objects))
            else:
                for other in objects:
                    self.say(name, who, other)

    def relation(self, item: Word) -> None:
        if self.pending is not None:
            self.clause.unread += 1
        if self.which_is and self.last is not None:
            self.subjects = [self.last]
        self.pending, self.objects, self.open, self.joined, self.which_is = item.value, [], False, False, False

    def which(self, item: Word) -> None:
        self.which_is = True

    def join(self, item: Word) -> None:
        self.joined = True

    def setting(self, item: Word) -> None:
        if self.pending in ("on", "under", "above", "near", "in front of", "behind") and not self.objects:
            self.pending = None
        self.joined = False

    def line(self, item: Word) -> None:
        if len(self.subjects) > 1:
            self.in_line(item.value)
        else:
            self.line_of, self.subjects, self.open = item.value, [], True

    def in_line(self, name: str) -> None:
        for who, other in zip(self.subjects, self.subjects[1:], strict=False):
            self.say(name, who, other)

    def place(self, item: Word) -> None:
        if self.subjects:
            self.say("place", self.subjects[-1], item.value)

    def depth(self, item: Word) -> None:
        if self.subjects:
            self.say("depth", self.subjects[-1], item.value)

    def count(self, item: Word) -> None:
        self.say("count", None, item.value)

    def colour(self, item: Word) -> None:
        if self.last is not None:
            self.say("colour", self.last, item.value)

    def word(self, item: Word) -> None:
        self.clause.unread += item.value in _CUES
        self.joined = False

    def skip(self, item: Word) -> None:
        """A sort of item that says nothing by itself."""

    def end(self) -> None:
        goes_on = self.pending == "on" and not self.objects and self.clause.text.rstrip(" .;?!").endswith(" on")
        waits = self.pending is not None and not goes_on  # "the robot walks on"
        self.clause.unread += waits or (self.before is not None and not self.clause.statements)
        if self.line_of and len(self.subjects) > 1:
            self.in_line(self.line_of)
