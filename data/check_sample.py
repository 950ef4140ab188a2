"""Holds one sample against itself: its prompt, thought, labels and questions against masks, albedo, boxes and grid.

`examine` returns what was checked and every fault found. A word counts as wrong only where the image contradicts it
clearly (`check_sight.py`); a word that could not be read, or whose noun phrase names no single subject, is unread.
Read next: `check.py`.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from data.check_clauses import Clause, Mention, Statement, Word
from data.check_reader import COLOURS, Reader
from data.check_sight import Sight, in_place, of_boxes, of_grid
from macro.sentence.layout import GRID_SIZE
from macro.sentence.prompt import MARKER, prompt_of
from macro.sentence.spans import Image, Sentence, Text

_VIEWS = {"view", "views", "camera"}  # clauses that name views of a place or an object speak of no subject's place
_NO_NOUNS = {"the", "a", "an", "at", "in", "on", "is", "are", "stands", "sits", "lies", "there", "subject"}
_COARSE = 0.13  # EDGE where only a grid of 8 x 8 or a box tells where a subject is


@dataclass(frozen=True)
class Fault:
    """Something wrong: in which check, in which text, its words, why, and how badly (0..1)."""

    check: str
    where: str
    words: str
    why: str
    weight: float = 0.5


@dataclass
class Examined:
    """Of each check: what was checked, and of all words of its sort how many were read. And the faults."""

    checked: Counter = field(default_factory=Counter)
    found: Counter = field(default_factory=Counter)
    read: Counter = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def kinds_of(sentence: Sentence) -> set[str]:
    """The nouns that a sample names its subjects with: of its truth, else of the labels of its regions."""
    if sentence.truth is not None:
        return set(sentence.truth.kinds)
    return {_bare(str(region["label"])) for region in sentence.notes.get("regions", ())} - {""}


def _bare(label: str) -> str:
    return " ".join(word for word in label.lower().split() if word not in COLOURS)


def examine(sentence: Sentence, reader: Reader) -> Examined:
    """Everything about one sample that its own record decides."""
    return _Examination(sentence, reader).run()


class _Examination:
    def __init__(self, sentence: Sentence, reader: Reader):
        self.sentence, self.reader, self.out = sentence, reader, Examined()
        self.images = {
            image.number: image.subject
            for image in sentence.images
            if image.number is not None and image.subject is not None and image.role != "source"
        }
        self.sight, self.kinds = self._what_is_known()
        self.edge = 0.03 if sentence.truth is not None else _COARSE

    def _what_is_known(self) -> tuple[Sight | None, tuple[str, ...]]:
        truth, regions = self.sentence.truth, self.sentence.notes.get("regions", ())
        if truth is not None:
            albedo = getattr(truth, "albedo", None)
            return Sight(truth.masks, truth.amodal, truth.depth_order, albedo), truth.kinds
        if regions:
            return of_boxes([region["box"] for region in regions]), tuple(_bare(str(r["label"])) for r in regions)
        if self.sentence.plan is not None and self.sentence.plan.grid is not None:
            sight = of_grid(self.sentence.plan.grid)
            return sight, ("",) * len(sight)
        return None, ()

    def run(self) -> Examined:
        self._markers()
        if self.sight is None:
            return self.out
        self._prompt()
        self._labels()
        if self.sentence.plan is not None:
            self._thought(self.sentence.plan.cot)
            self._layout()
        if self.sentence.truth is not None:
            self._stored()
            for n, (text, answer) in enumerate(self.sentence.truth.questions, 1):
                self._question(f"question {n}", text, answer)
        return self.out

    # ---- what is counted ----

    def _count(self, check: str, good: bool | None, where: str, words: str, why: str, weight: float = 0.5) -> None:
        """One thing checked; `good` is False where it is wrong. None (open) counts as checked and not wrong."""
        self.out.checked[check] += 1
        if good is not None and not good:
            self.out.faults.append(Fault(check, where, words, why, weight))

    def _reads(self, check: str, read: bool) -> None:
        self.out.found[check] += 1
        self.out.read[check] += read

    # ---- who is meant ----

    def _who(self, mention: Mention, place: int | None = None) -> tuple[int | None, str]:
        """The subject that a mention means and "", or why it means none; `place`: the subject whose entry it heads."""
        numbered = {self.images[n] for n in mention.numbers if n in self.images}
        known = numbered or ({mention.ordinal} if mention.ordinal is not None else {place} if place else set())
        if known:
            subject = known.pop()
            if known:
                return None, "several subjects"
            if not 1 <= subject <= len(self.sight):
                return None, f"there is no subject {subject}"
            kind = self.kinds[subject - 1]
            if mention.kind and kind and mention.kind != kind:
                return None, f"subject {subject} is a {kind}"
            return subject, ""
        named = [n for n in self.sight.visible if mention.kind and self.kinds[n - 1] == mention.kind]
        if len(named) < 2:
            absent = mention.kind and self.sentence.truth is not None  # else there may be more than is known
            return (named[0], "") if named else (None, f"no {mention.kind} is to be seen" if absent else "")
        if mention.across is not None:
            across = sorted(named, key=lambda n: self.sight.centres[n - 1][0])
            at = mention.across - (mention.across > 0)
            found = -len(across) <= at < len(across)
            return (across[at], "") if found else (None, f"only {len(across)} of {mention.kind} are to be seen")
        fits = [n for n in named if mention.colours and self.sight.coloured(n, mention.colours) is not False]
        if mention.colours and not fits:
            seen = "; ".join(self._colours_in_words(n) for n in named)
            return None, f"no {mention.kind} has these colours ({seen})"
        return (fits[0], "") if len(fits) == 1 else (None, "")

    def _colours_in_words(self, subject: int) -> str:
        shares = self.sight.colours(subject)
        return ", ".join(f"{name} {share:.0%}" for name, share in list(shares.closest.items())[:3]) if shares else ""

    def _coloured(self, where: str, mention: Mention, colours: Sequence[str], place: int | None = None) -> None:
        """Checks the colour words of a noun phrase, or of what a clause says of it."""
        who, why = self._who(mention, place)
        judged = who is not None and self.sight.colours(who) is not None
        for _ in colours:
            self._reads("colour_words", judged or bool(why))
        if judged:
            share = sum(self.sight.colours(who).most.get(colour, 0.0) for colour in colours)
            why = f"the pixels of subject {who} are {self._colours_in_words(who)}"
            words = mention.text if colours is mention.colours else f"{mention.text} ... {' and '.join(colours)}"
            self._count("colour_words", self.sight.coloured(who, colours), where, words, why, 1 - share)
        elif why and "colours" in why:
            self._count("colour_words", False, where, mention.text, why, 1.0)

    def _named(self, where: str, mention: Mention) -> None:
        """Checks that an image's or a number's noun is what it shows."""
        if mention.kind and (mention.numbers or mention.ordinal is not None):
            _, why = self._who(mention)
            if set(mention.numbers) & set(self.images) or mention.ordinal is not None:
                self._count("subjects", not why.startswith(("subject", "there is no")), where, mention.text, why, 1.0)

    def _there(self, where: str, mention: Mention) -> None:
        """Checks that what a thought names is to be seen, and has the number it gives."""
        _, why = self._who(mention)
        if mention.kind and "colours" not in why:
            self._count("thoughts", not why, where, mention.text, why, 1.0)

    def _related(self, check: str, where: str, said: Statement, place: int | None = None) -> None:
        """Checks a statement that relates two subjects, or three."""
        others = said.other if isinstance(said.other, tuple) else (said.other,)
        meant = [self._who(mention, place if n == 0 else None) for n, mention in enumerate((said.who, *others))]
        (who, *whom), why = (subject for subject, _ in meant), next((why for _, why in meant if why), "")
        known = who is not None and None not in whom
        self._reads(check, known or bool(why))
        words = f"{said.who.text} {said.name} {' and '.join(other.text for other in others)}"
        if why:
            self._count(check, False, where, words, why, 0.9)
        elif known:
            good = self.sight.sees(who, said.name, tuple(whom) if len(whom) > 1 else whom[0])
            self._count(check, good, where, words, f"not so of subjects {', '.join(map(str, (who, *whom)))}", 0.7)

    # ---- the checks ----

    def _prompt(self) -> None:
        for clause in self.reader.read(prompt_of(self.sentence)):
            if set(clause.of("word")) & _VIEWS:
                continue
            for mention in clause.mentions:
                self._named("prompt", mention)
                if mention.colours and not mention.gone:
                    self._coloured("prompt", mention, mention.colours)
            for said in clause.statements:
                if said.who is not None and said.who.gone:
                    continue
                if said.name == "colour":
                    self._coloured("prompt", said.who, said.other)
                elif said.name == "place":
                    self._placed("relations", "prompt", said)
                elif said.who is not None and isinstance(said.other, Mention | tuple) and said.name != "depth":
                    self._related("relations", "prompt", said)
            for _ in range(clause.unread):
                self._reads("relations", False)

    def _placed(self, check: str, where: str, said: Statement, place: int | None = None) -> None:
        who, _ = self._who(said.who, place)
        self._reads(check, who is not None)
        if who is not None and who in self.sight.visible:
            centre = self.sight.centres[who - 1]
            row, column = said.other
            words = " ".join(part for part in (said.who.text, row if row != "level" else "", column) if part)
            why = f"subject {who} is at x {centre[0]:.2f}, y {centre[1]:.2f}"
            self._count(check, in_place(centre, said.other, self.edge), where, words, why, 0.8)

    def _labels(self) -> None:
        for image in self.sentence.images:
            if image.phrase and image.subject is not None:
                self._label(f"phrase of image {image.number}", image.phrase, image.subject)
        regions = self.sentence.notes.get("regions", ())
        if self.sentence.truth is not None and len(regions) == len(self.kinds):
            for n, region in enumerate(regions, 1):
                self._label(f"label of region {n}", str(region["label"]), n)

    def _label(self, where: str, words: str, subject: int) -> None:
        for clause in self.reader.read(words):
            for mention in clause.mentions[:1]:
                mention = dataclasses.replace(mention, numbers=(), ordinal=subject)
                self._named(where, mention)
                if mention.colours:
                    self._coloured(where, mention, mention.colours)

    def _thought(self, cot: str) -> None:
        clauses = self.reader.read(cot)
        entries = [clause for clause in clauses if _is_entry(clause)]
        places = self._places(entries)
        for clause in clauses:
            place = next((places[n] for n, entry in enumerate(entries) if entry is clause), None)
            for n, mention in enumerate(clause.mentions):
                head = place if n == 0 else None
                if n == 0 and place is not None:
                    _, why = self._who(mention, place)
                    self._count("thoughts", not why, "thought", mention.text, why, 1.0)
                elif not mention.gone:
                    self._there("thought", mention)
                if mention.colours and not mention.gone:
                    self._coloured("thought", mention, mention.colours, head)
            self._statements_of_thought(clause, place)
            for _ in range(clause.unread):
                self._reads("thoughts", False)
            if self.sentence.truth is not None and (stranger := _stranger(clause)):
                self._count("thoughts", False, "thought", clause.text, f"{stranger!r} is no subject's noun", 1.0)
        self._everybody(entries, places)
        self._depths(entries, places)

    def _statements_of_thought(self, clause: Clause, place: int | None) -> None:
        first = clause.mentions[0] if clause.mentions else None
        for said in clause.statements:
            head = place if said.who is first else None
            if said.who is not None and said.who.gone:
                continue
            if said.name == "count":
                self._reads("thoughts", True)
                tiny = len(self.sight.visible) - len(self.sight.counted)
                good = 0 <= (self._number(said.other) or 0) - said.other[0] <= tiny
                self._count("thoughts", good, "thought", clause.text, f"there are {self._number(said.other)}", 0.9)
            elif said.name == "colour":
                self._coloured("thought", said.who, said.other, head)
            elif said.name == "place":
                self._placed("thoughts", "thought", said, head)
            elif said.name != "depth":
                self._related("thoughts", "thought", said, head)

    def _places(self, entries: Sequence[Clause]) -> list[int | None]:
        """The subject that each entry of a thought must be about: by its number, else by its place in the list."""
        listed = next((some for some in (self.sight.visible, self.sight.counted) if len(some) == len(entries)), None)
        return [
            entry.mentions[0].ordinal or (listed[n] if listed else self._who(entry.mentions[0])[0])
            for n, entry in enumerate(entries)
        ]

    def _everybody(self, entries: Sequence[Clause], places: Sequence[int | None]) -> None:
        """Where a thought lists the subjects, each visible one is in it once."""
        if len(entries) * 2 <= len(self.sight.visible) or not entries:
            return
        told = Counter(place for place in places if place is not None)
        for subject in self.sight.visible:
            why = f"subject {subject} is {'told twice' if told[subject] else 'left out'}"
            good = told[subject] == 1 or (not told[subject] and subject not in self.sight.counted)
            self._count("thoughts", good, "thought", self.kinds[subject - 1], why, 0.9)

    def _depths(self, entries: Sequence[Clause], places: Sequence[int | None]) -> None:
        rank = {n: self.sight.rank[n] for n in self.sight.visible if n in self.sight.rank}
        told = {
            place: said.other
            for entry, place in zip(entries, places, strict=True)
            for said in entry.statements
            if said.name == "depth" and said.who is entry.mentions[0] and place in rank
        }
        for subject, depth in told.items():
            self._reads("thoughts", True)
            others = [rank[n] for n, other in told.items() if other != depth]
            good = all((rank[subject] < other) == (depth == "near") for other in others)
            words = f"{self.kinds[subject - 1]} {'near' if depth == 'near' else 'far back'}"
            why = f"subject {subject} is number {rank[subject] + 1} of {len(rank)} from the viewer"
            good = good and self.sight.is_depth(subject, depth) is not False
            self._count("thoughts", good, "thought", words, why, 0.6)

    def _number(self, count: tuple[int, str | None, tuple[str, ...]]) -> int | None:
        """How many visible subjects a count speaks of; None if their colours cannot be told."""
        _, kind, colours = count
        these = [n for n in self.sight.visible if kind is None or self.kinds[n - 1] == kind]
        if not colours:
            return len(these)
        judged = [self.sight.coloured(n, colours) for n in these]
        return None if None in judged else sum(judged)

    def _layout(self) -> None:
        """The cells of each subject touch its box, and every visible subject of the plan has cells."""
        grid = self.sentence.plan.grid
        if grid is None or self.sentence.truth is None:
            return
        for subject in self.sight.visible:
            if subject not in self.sight.counted and subject not in self.sentence.plan.named:
                continue
            x0, y0, x1, y1 = np.array(self.sight.box(subject)) * GRID_SIZE
            rows, columns = np.nonzero(grid == subject)
            outside = (columns + 1 <= x0) | (columns >= x1) | (rows + 1 <= y0) | (rows >= y1)
            why = f"{int(outside.sum())} of its {len(rows)} cells lie outside its box" if len(rows) else "has no cell"
            good = bool(len(rows)) and not outside.any()
            self._count("layouts", good, "layout", f"subject {subject}: {self.kinds[subject - 1]}", why, 0.8)

    def _stored(self) -> None:
        """The relations and boxes of the truth against its masks."""
        truth = self.sentence.truth
        for i, name, j in truth.relations:
            other = tuple(j) if isinstance(j, tuple | list) else j
            self._count("relations", self.sight.sees(i, name, other), "truth", f"{i} {name} {j}", "not in the masks")
        for n, box in enumerate(truth.boxes, 1):
            if n in self.sight.visible:
                seen = self.sight.box(n)
                good = bool(np.abs(np.array(seen) - box).max() <= 1.5 / min(truth.masks.shape[1:]))
                told = np.round(box, 2).tolist()
                self._count("boxes", good, "truth", f"box {n}: {told}", f"its mask has {np.round(seen, 2).tolist()}")

    # ---- questions ----

    def _question(self, where: str, text: str, answer: bool) -> None:
        due, why = self._answer(text)
        self._reads("questions", due is not None or bool(why))
        if due is not None or why:
            good = None if due is None else due == bool(answer)
            self._count("questions", good, where, f"{text} {'yes' if answer else 'no'}", why, 0.9)

    def _answer(self, text: str) -> tuple[bool | None, str]:
        """The answer that the image gives, and why; None and a reason where it leaves that open, "" if unread."""
        clause = next(iter(self.reader.read(text)), Clause(""))
        present = re.match(r"(?:is|are) there ", clause.text)
        if present and clause.of("count"):
            (number, *_), seen = clause.of("count")[0], self._number(clause.of("count")[0])
            return (None, "colours are open") if seen is None else (seen == number, f"there are {seen}")
        if present:
            return self._presence(clause)
        for said in clause.statements:
            others = said.other if isinstance(said.other, tuple) and said.name == "between" else (said.other,)
            mentions = [said.who, *(other for other in others if isinstance(other, Mention))]
            who, whys = zip(*map(self._who, mentions), strict=True)
            if None in who:
                why = next(filter(None, whys), "")
                return (None, "") if not why else (False, why)
            if said.name == "colour":
                seen = self.sight.coloured(who[0], said.other)
                return seen, self._colours_in_words(who[0])
            whom = tuple(who[1:]) if len(who) > 2 else who[1]
            return self.sight.sees(who[0], said.name, whom), f"subjects {', '.join(map(str, who))}"
        return None, ""

    def _presence(self, clause: Clause) -> tuple[bool | None, str]:
        if not clause.mentions:  # a noun, or a number of them, that the whole data set does not know
            return False, "there is none"
        mention = clause.mentions[0]
        these = [n for n in self.sight.visible if self.kinds[n - 1] == mention.kind]
        if not these or not mention.colours:
            return bool(these), f"there are {len(these)}"
        judged = [self.sight.coloured(n, mention.colours) for n in these]
        seen = True if True in judged else None if None in judged else False
        return seen, "; ".join(self._colours_in_words(n) for n in these) or "no colours are stored"

    # ---- markers ----

    def _markers(self) -> None:
        """Every `<image n>` of the texts is there, and every numbered image is mentioned."""
        images = self.sentence.images
        texts = [("prompt", prompt_of(self.sentence))]
        texts += [("text", span.text) for span in self.sentence if isinstance(span, Text) and span.learn]
        told = set()
        for where, text in texts:
            for found in MARKER.finditer(text):
                told.add(int(found[1]))
                good = 1 <= int(found[1]) <= len(images)
                self._count("markers", good, where, found[0], f"there are {len(images)} images", 1.0)
        for number, image in _numbered(images):
            why = "no text mentions it"
            self._count("markers", number in told or image.role == "source", "prompt", f"image {number}", why, 0.7)


def _numbered(images: Sequence[Image]) -> Iterator[tuple[int, Image]]:
    return ((image.number, image) for image in images if image.number is not None)


def _is_entry(clause: Clause) -> bool:
    """Whether a clause of a thought tells where a subject is, as the list of subjects does."""
    first = clause.items[0] if clause.items else None
    head = isinstance(first, Mention) and not first.gone
    return head and any(said.name in ("place", "depth") for said in clause.statements)


def _stranger(clause: Clause) -> str | None:
    """The noun of an entry that names nothing the data set knows ("2 red zebra: lower left"), else None."""
    at = next((n for n, item in enumerate(clause.items) if getattr(item, "sort", "") in ("place", "depth")), 0)
    head = [item for item in clause.items[:at] if not (isinstance(item, Word) and item.value in _NO_NOUNS)]
    words = [item.value for item in head if isinstance(item, Word) and item.sort == "word" and item.value != ":"]
    return words[-1] if words and len(head) <= 4 and all(not getattr(item, "kind", None) for item in head) else None
