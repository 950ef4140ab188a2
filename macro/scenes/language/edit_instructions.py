"""Instructions for edits, with images in them, and the chains of thought that describe the change.

    remove the <image 1> dog.                             put a <image 2> robot left of the tree in <image 1>.
    move the car behind the house.                        replace the tree by the <image 2> cactus.

`<image 1>` is the image to edit, the others show the new subject. Every name is unambiguous in its image; the target
position is a relation that holds in the image after the edit and, for a moved subject, not before.
Read next: `edits.py`, `lexicon.py`.
"""

from collections.abc import Sequence

import numpy as np

from macro.scenes.edits import Edit
from macro.scenes.language.lexicon import PHRASES, RELATION_WEIGHTS, distinct_nouns
from macro.sentence.spans import Truth

_SAYINGS = {
    "add": ("put {new} {where}", "add {new} {where}", "place {new} {where}", "{new} should stand {where}"),
    "remove": ("remove {old}", "take {old} away", "erase {old}", "let {old} disappear"),
    "replace": ("replace {old} by {new}", "put {new} in place of {old}", "swap {old} for {new}"),
    "move": ("move {old} {where}", "put {old} {where}", "{old} should stand {where}", "{old} goes {where}"),
    "recolour": ("paint {old} {colour}", "make {old} {colour}", "colour {old} {colour}", "let {old} be {colour}"),
}
_THOUGHTS = {
    "add": "{new} comes", "remove": "{old} goes", "replace": "{new} comes for {old}", "move": "{old} moves",
    "recolour": "{old} turns {colour}",
}  # fmt: skip


def instruction(
    edit: Edit, before: Truth, after: Truth, rng: np.random.Generator, images: Sequence[int] = (2,)
) -> str | None:
    """The instruction for an edit; None if no true statement names all subjects unambiguously, or
    a recoloured subject does not look like its new colour.

    Args:
        before, after: ground truth of the two images.
        rng: chooses the wording.
        images: numbers of the images that show the new subject, if there is one.
    """
    old = None if edit.subject is None else distinct_nouns(before)[edit.subject - 1]
    if edit.subject is not None and old is None:
        return None
    if edit.operation == "recolour" and after.colours[edit.result - 1] != (edit.colour,):
        return None  # most of what one sees of it has other colours
    words = {"colour": edit.colour, "old": f"the {old}"}
    # The image to edit is named before the noun, at the end or start of the sentence, or not at all.
    named = str(rng.choice(["", "noun", "end", "start"], p=[0.25, 0.35, 0.2, 0.2]))
    if named == "noun" and old is not None:
        words["old"] = f"the <image 1> {old}"
    if edit.operation in ("add", "replace"):
        markers = " ".join(f"<image {n}>" for n in images)
        words["new"] = f"{rng.choice(['the', 'a'])} {markers} {after.kinds[0]}"
    if edit.operation in ("add", "move"):
        words["where"] = _where(edit, before, after, rng)
        if words["where"] is None:
            return None
    said = str(rng.choice(_SAYINGS[edit.operation])).format(**words)
    said = f"{said} in <image 1>" if named == "end" else f"in <image 1>, {said}" if named == "start" else said
    return f"{said}."


def thought(edit: Edit, before: Truth, after: Truth) -> str:
    """A description of the change, to precede the chain of thought about all positions."""
    old = None
    if edit.subject is not None:
        old = distinct_nouns(before)[edit.subject - 1] or before.kinds[edit.subject - 1]
    words = {"old": f"the {old}", "new": f"the {after.kinds[0]}" if after.kinds else "", "colour": edit.colour}
    return f"{_THOUGHTS[edit.operation].format(**words)}. all else stays. "


def _claims(edit: Edit, before: Truth, after: Truth) -> list[tuple[str, tuple[int, ...]]]:
    """The edited subject's target: (relation, numbers in `after`), true after the edit and, if it moves, not before."""
    return [(name, others) for name, others in _relations(after, edit.result) if not _held(edit, before, name, others)]


def _held(edit: Edit, before: Truth, name: str, others: tuple[int, ...]) -> bool:
    if edit.subject is None:
        return False
    return (name, tuple(sorted(edit.origins[n - 1] for n in others))) in _relations(before, edit.subject)


def _relations(truth: Truth, number: int) -> list[tuple[str, tuple[int, ...]]]:
    """The relations of a subject that instructions use."""
    found = ((name, j if isinstance(j, tuple) else (j,)) for i, name, j in truth.relations if i == number)
    return [(name, others) for name, others in found if name in RELATION_WEIGHTS]


def _where(edit: Edit, before: Truth, after: Truth, rng: np.random.Generator) -> str | None:
    """One claim as text; subjects named in it have their names in both images."""
    then, now = distinct_nouns(before), distinct_nouns(after)
    names = {
        n: now[n - 1]
        for n, origin in enumerate(edit.origins, 1)
        if origin is not None and now[n - 1] is not None and now[n - 1] == then[origin - 1]
    }
    possible = [(name, others) for name, others in _claims(edit, before, after) if set(others) <= set(names)]
    if not possible:
        return None
    worth = np.array([RELATION_WEIGHTS[name] for name, _ in possible])
    name, others = possible[int(rng.choice(len(possible), p=worth / worth.sum()))]
    if name == "between":
        return f"between the {names[others[0]]} and the {names[others[1]]}"
    return f"{rng.choice(PHRASES[name])} the {names[others[0]]}"
