"""Parses a text written by `captions.py` into its claims about the image, from the text alone.

    "on sand, the <image 1> dog stands left of the <image 2> tree. behind the tree is the car."
    Claims((1, 2, 3), ((1, "left of", 2), (3, "behind", 2)), "sand")

To judge an image by its prompt, compare these with the image's ground truth. The parser covers the grammar of
`sentence_templates.py` (pairs, fans, chains, joints, rows, "between") and skips all other words.
Read next: `captions.py`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from macro.scenes.assets.appearance import PLACES
from macro.scenes.assets.palettes import COLOURS
from macro.scenes.graph import TEXTURES, Surroundings
from macro.scenes.language.lexicon import PHRASES, TEXTURE_WORDS, ground_words, plain_nouns
from macro.sentence.spans import Truth

Relation = tuple[int, str, int | tuple[int, int]]

_SPOKEN = {phrase: name for name, phrases in PHRASES.items() for phrase in phrases}
_ROWS = {"from left to right": "left of", "from right to left": "right of"}
_COLOURS, _TEXTURES = "|".join(COLOURS), "|".join(filter(None, TEXTURE_WORDS.values()))
# Words between the parts of a sentence without a meaning of their own; any other word ends a phrase.
_PASSED_OVER = {"the", "a", "an", "is", "are", "stands", "can", "be", "seen", "put", "place", "set", "to"}


@dataclass(frozen=True)
class Claims:
    """The claims of a text about an image.

    Attributes:
        mentioned: numbers of all named subjects, in order of mention.
        relations: (i, name, j), or (i, "between", (j, k)) with j < k, as in `Truth.relations`.
        ground: the ground, as named by `lexicon.ground_words`; None if the text does not name it.
    """

    mentioned: tuple[int, ...]
    relations: tuple[Relation, ...]
    ground: str | None


def parse_prompt(text: str, nouns: Mapping[str, int]) -> Claims:
    """The claims of a text.

    Args:
        text: lower case sentences, as written by `captions.instruction` and `captions.caption`.
        nouns: name -> the subject's number in the claims. Longer names are tried first.
    """
    mentioned: dict[int, None] = {}
    relations: dict[Relation, None] = {}
    for sentence in re.split(r"[.;]\s*", _undescribed(text, nouns)):
        letters, values = _tokens(sentence, nouns)
        mentioned |= dict.fromkeys(value for value in values if isinstance(value, int))
        relations |= dict.fromkeys(_relations(letters, values))
    return Claims(tuple(mentioned), tuple(relations), _ground(text))


def _undescribed(text: str, nouns: Mapping[str, int]) -> str:
    """The text without what describes a noun: "striped red car" becomes "car", unless "red car" is a noun itself."""
    if not nouns:
        return text
    names = "|".join(re.escape(noun) for noun in sorted(nouns, key=len, reverse=True))
    described = rf"\b(?:(?:{_TEXTURES}) )?((?:{_COLOURS})(?: and (?:{_COLOURS}))? )({names})(?!\w)"
    return re.sub(described, lambda found: found[0] if found[1] + found[2] in nouns else found[2], text)


def names_in_instructions(truth: Truth) -> dict[str, int]:
    """Names that `captions.instruction` may use -> subject number, where only `<image n>` shows subject n."""
    markers = {f"<image {n}>": n for n in range(1, len(truth.kinds) + 1)}
    marked = {f"<image {n}> {kind}": n for n, kind in enumerate(truth.kinds, 1)}
    return markers | marked | {noun: n for n, noun in enumerate(plain_nouns(truth), 1) if noun}


# A sentence as one letter per token, so that the grammar is a regular expression: (n)oun, (r)elation, (b)etween,
# (o)rder of a row, "," and "&" between nouns or relations, (w)hich is; "#" for any other word, which ends a phrase.
_LETTERS = {phrase: "r" for phrase in _SPOKEN} | {"between": "b", ", which is": "w", "and": "&", ",": ","}
_LETTERS |= dict.fromkeys(_ROWS, "o")
_NOUNS = "n(?:[,&]n)*"
_PLACE = "(?:rn|bn[,&w]n)"
# "who [is] where" or "where [is] who"; a place may go on with "and behind b" or, after a single noun, ", which is ...".
_CLAUSE = re.compile(
    f"(?P<who>{_NOUNS})(?:(?P<row>o)|(?P<places>{_PLACE}(?:(?:&|(?<=rn)w){_PLACE})*)?)"
    f"|(?P<place>{_PLACE}),?(?P<late>{_NOUNS})?"
)


def _tokens(sentence: str, nouns: Mapping[str, int]) -> tuple[str, list[int | str]]:
    """The letters of a sentence's tokens, and for each the noun's number or the token's text."""
    known = "|".join(re.escape(phrase) for phrase in sorted({*_LETTERS, *nouns}, key=len, reverse=True))
    words = re.findall(rf", which is\b|,|(?<!\w)(?:{known})(?!\w)|[\w'-]+", sentence)
    words = [word for word in words if word in nouns or word in _LETTERS or word not in _PASSED_OVER]
    return "".join("n" if w in nouns else _LETTERS.get(w, "#") for w in words), [nouns.get(w, w) for w in words]


def _relations(letters: str, values: Sequence[int | str]) -> Iterator[Relation]:
    """The claims of a sentence's clauses, in order."""

    def numbers(clause: re.Match, group: str) -> list[int]:
        start, stop = clause.span(group)
        return [n for n in values[start:stop] if isinstance(n, int)]

    for clause in _CLAUSE.finditer(letters):
        if clause["place"] and clause["late"]:
            name, whose = _read_place(letters, values, clause.start("place"))
            yield from ((i, name, whose) for i in numbers(clause, "late"))
        elif clause["row"]:
            who, name = numbers(clause, "who"), _ROWS[values[clause.start("row")]]
            yield from ((i, name, j) for i, j in zip(who, who[1:], strict=False))
        elif clause["places"]:
            who = numbers(clause, "who")
            for place in re.compile(_PLACE).finditer(letters, *clause.span("places")):
                name, whose = _read_place(letters, values, place.start())
                yield from ((i, name, whose) for i in who)
                who = [whose] if letters[place.end() : place.end() + 1] == "w" else who


def _read_place(letters: str, values: Sequence[int | str], at: int) -> tuple[str, int | tuple[int, int]]:
    """(relation, its objects) of the place phrase that begins at a token."""
    if letters[at] == "b":
        return "between", tuple(sorted((values[at + 1], values[at + 3])))
    return _SPOKEN[values[at]], values[at + 1]


@lru_cache(maxsize=1)
def grounds() -> tuple[str, ...]:
    """All names of grounds, longest first."""
    every = {
        ground_words(Surroundings(ground, second, texture, zenith, horizon, "open"))
        for ground, second, zenith, horizon in PLACES.values()
        for texture in TEXTURES
    }
    return tuple(sorted(every, key=lambda words: (-len(words), words)))


def _ground(text: str) -> str | None:
    known = "|".join(map(re.escape, grounds()))
    found = re.search(rf"(?:\bon ({known}))(?!\w)|(?<![\w])({known}) (?:below|all around)", text)
    return (found[1] or found[2]) if found else None
