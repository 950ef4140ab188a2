"""What a text in the words of `captions.py` claims of an image, read back from the words alone.

    "on sand, the <image 1> dog stands left of the <image 2> tree. behind the tree is the car."
    Claims((1, 2, 3), ((1, "left of", 2), (3, "behind", 2)), "sand")

Whoever judges an image by its prompt holds these against the image's truth. The reader knows the grammar of
`sentence_templates.py` (pairs, fans, chains, joints, rows, "between") and passes over all other words.
Read next: `captions.py`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from macro.scenes.assets.appearance import PLACES
from macro.scenes.graph import TEXTURES, Surroundings
from macro.scenes.language.lexicon import PHRASES, ground_words, plain_nouns
from macro.sentence.spans import Truth

Relation = tuple[int, str, int | tuple[int, int]]

_SPOKEN = {phrase: name for name, phrases in PHRASES.items() for phrase in phrases} | {"between": "between"}
_ROWS = {"from left to right": "left of", "from right to left": "right of"}
_JOINTS = (", which is", "and", ",")
# Words between the parts of a sentence that say nothing of their own; any other word breaks a phrase off.
_PASSED_OVER = {"the", "a", "an", "is", "are", "stands", "can", "be", "seen", "put", "place", "set", "to"}


@dataclass(frozen=True)
class Claims:
    """What a text says of an image.

    Attributes:
        mentioned: numbers of all that is named, in order of mention.
        relations: (i, name, j), or (i, "between", (j, k)) with j < k, as in `Truth.relations`.
        ground: what lies underfoot, in the words of `lexicon.ground_words`; None where the text does not say.
    """

    mentioned: tuple[int, ...]
    relations: tuple[Relation, ...]
    ground: str | None


def parse_prompt(text: str, nouns: Mapping[str, int]) -> Claims:
    """The claims of a text.

    Args:
        text: lower case sentences, in the manner of `captions.instruction` and `captions.caption`.
        nouns: how things are called -> the number that claims call them by. Longer names are tried first.
    """
    mentioned: dict[int, None] = {}
    relations: dict[Relation, None] = {}
    for sentence in re.split(r"[.;]\s*", text):
        tokens = list(_tokens(sentence, nouns))
        mentioned |= dict.fromkeys(value for kind, value in tokens if kind == "noun")
        relations |= dict.fromkeys(_relations(tokens))
    return Claims(tuple(mentioned), tuple(relations), _ground(text))


def names_in_instructions(truth: Truth) -> dict[str, int]:
    """What `captions.instruction` may call each subject, where `<image n>` alone shows subject n -> its number."""
    markers = {f"<image {n}>": n for n in range(1, len(truth.kinds) + 1)}
    marked = {f"<image {n}> {kind}": n for n, kind in enumerate(truth.kinds, 1)}
    return markers | marked | {noun: n for n, noun in enumerate(plain_nouns(truth), 1) if noun}


Token = tuple[str, int | str]


def _tokens(sentence: str, nouns: Mapping[str, int]) -> Iterator[Token]:
    """("noun", number), ("is", relation), ("row", relation), ("joint", word) or ("break", "") in order."""
    table: dict[str, Token] = {phrase: ("is", name) for phrase, name in _SPOKEN.items()}
    table |= {phrase: ("row", name) for phrase, name in _ROWS.items()}
    table |= {word: ("joint", word) for word in _JOINTS}
    table |= {noun: ("noun", number) for noun, number in nouns.items()}
    known = "|".join(re.escape(phrase) for phrase in sorted(table, key=len, reverse=True))
    for match in re.finditer(rf", which is\b|,|(?<!\w)(?:{known})(?!\w)|[\w'-]+", sentence):
        if match[0] in table:
            yield table[match[0]]
        elif match[0] not in _PASSED_OVER:
            yield "break", ""


def _relations(tokens: list[Token]) -> Iterator[Relation]:
    """Reads "who [is] where" or "where [is] who"; who are one or several nouns, where a chain of relations."""
    at = 0
    while at < len(tokens):
        if tokens[at][0] == "noun":
            who, at = _nouns(tokens, at)
            if at < len(tokens) and tokens[at][0] == "row":
                yield from ((i, tokens[at][1], j) for i, j in zip(who, who[1:], strict=False))
            else:
                found, at = _where(tokens, at, who)
                yield from found
        elif tokens[at][0] == "is":
            turned, at = _inverted(tokens, at)
            yield from turned
        else:
            at += 1


def _nouns(tokens: list[Token], at: int) -> tuple[list[int], int]:
    """Nouns joined by commas and "and" from `at` on, and where they end."""
    who = [tokens[at][1]]
    at += 1
    while at + 1 < len(tokens) and tokens[at] in (("joint", ","), ("joint", "and")) and tokens[at + 1][0] == "noun":
        who.append(tokens[at + 1][1])
        at += 2
    return who, at


def _object(tokens: list[Token], at: int) -> tuple[str, int | tuple[int, int], int] | None:
    """(relation, whose, end) of a relation and its noun or two at `at`; None where there is none."""
    kinds = [kind for kind, _ in tokens[at : at + 4]]
    if tokens[at : at + 1] == [("is", "between")]:
        if kinds == ["is", "noun", "joint", "noun"]:
            j, k = sorted((tokens[at + 1][1], tokens[at + 3][1]))
            return "between", (j, k), at + 4
        return None
    if kinds[:2] == ["is", "noun"]:
        return tokens[at][1], tokens[at + 1][1], at + 2
    return None


def _where(tokens: list[Token], at: int, who: list[int]) -> tuple[list[Relation], int]:
    """What is said of `who` from `at` on: "left of a", "left of a and behind b", "left of a, which is behind b"."""
    found: list[Relation] = []
    while (spoken := _object(tokens, at)) is not None:
        name, whose, at = spoken
        found += [(i, name, whose) for i in who]
        joint = tokens[at] if at < len(tokens) else None
        if joint == ("joint", ", which is") and isinstance(whose, int):
            who, at = [whose], at + 1
        elif joint == ("joint", "and") and at + 1 < len(tokens) and tokens[at + 1][0] == "is":
            at += 1
        else:
            break
    return found, at if found else at + 1


def _inverted(tokens: list[Token], at: int) -> tuple[list[Relation], int]:
    """ "behind the tree is the car": the place is said before the subject."""
    spoken = _object(tokens, at)
    if spoken is None:
        return [], at + 1
    name, whose, at = spoken
    if at < len(tokens) and tokens[at] == ("joint", ","):
        at += 1
    if at >= len(tokens) or tokens[at][0] != "noun":
        return [], at
    who, at = _nouns(tokens, at)
    return [(i, name, whose) for i in who], at


@lru_cache(maxsize=1)
def grounds() -> tuple[str, ...]:
    """Every way a ground may be called, longest first."""
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
