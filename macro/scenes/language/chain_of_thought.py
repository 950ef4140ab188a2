"""The chain of thought: the subjects, their positions, relations and occlusions.

    "three things. 1 red robot: left, near. 2 lime tree: centre, hides part of 3. 3 navy car: far back."

Generated from the ground truth, so all of it holds: positions are those of the visible masks' centroids,
occlusions and relations those of `relations.py`, colours those of the visible pixels.
Read next: `questions.py`.
"""

import numpy as np

from macro.scenes.graph import Scene
from macro.scenes.ground_truth.relations import centroids
from macro.scenes.language.lexicon import (
    NUMBERS,
    PHRASES,
    TEXTURE_WORDS,
    colour_words,
    distinct_nouns,
    place,
    ranges,
)
from macro.sentence.spans import Truth

_RELATIONS = {"on": 9.0, "behind": 2.0, "in front of": 2.0, "left of": 1.0, "right of": 1.0, "next to": 1.0}
_HIDES = ("hides part of", "partly hides", "covers part of")
_HIDDEN = ("partly behind", "partly hidden by")
_ALL = ("subjects", "things", "figures")


def cot(scene: Scene, truth: Truth, rng: np.random.Generator) -> str:
    """The chain of thought before the layout of `truth`'s image; about eight words a subject.

    Args:
        scene: its distances define "near" and "far back".
        truth: all else.
        rng: chooses the wording.
    """
    thinker = _Thinker(scene, truth, rng)
    entries = [thinker.entry(n) for n in range(1, len(truth.kinds) + 1)]
    return f"{thinker.opening()}{' '.join(entries)}"


class _Thinker:
    """Writes one entry a subject, in one style: "1 red robot: ..." with numbers or "the red robot: ..."."""

    def __init__(self, scene: Scene, truth: Truth, rng: np.random.Generator):
        self.truth, self.rng = truth, rng
        self.numbered = bool(rng.random() < 0.65)
        self.colours = colour_words(truth) if rng.random() < 0.8 else ("",) * len(truth.kinds)
        self.textures = truth.textures if rng.random() < 0.25 else ("plain",) * len(truth.kinds)
        forms = [("{n} ", ":"), ("{n} ", "")] if self.numbered else [("the ", ":"), ("", " at the"), ("", "")]
        self.before, self.after = forms[int(rng.integers(len(forms)))]
        self.places = [place(x, y) for x, y in centroids(truth.masks)]
        self.ranges = ranges(scene)
        self.others = [
            str(n) if self.numbered else f"the {noun}" if noun else f"subject {n}"
            for n, noun in enumerate(distinct_nouns(truth), 1)
        ]

    def opening(self) -> str:
        count = len(self.truth.kinds)
        if count == 1 or self.rng.random() < 0.5:
            return ""
        return f"{NUMBERS[count]} {self.rng.choice(_ALL)}. "

    def entry(self, n: int) -> str:
        texture, colour = TEXTURE_WORDS[self.textures[n - 1]], self.colours[n - 1]
        who = " ".join(word for word in (texture, colour, self.truth.kinds[n - 1]) if word)
        said = [self.places[n - 1], self.ranges[n - 1], self._beside(n)]
        if not self.after.endswith("the") and self.rng.random() < 0.3:
            said[:2] = said[1::-1]
        where = ", ".join(part for part in said if part)
        return f"{self.before.format(n=n)}{who}{self.after} {where}."

    def _beside(self, n: int) -> str:
        """Its occlusion, else one relation, sometimes none."""
        of = [(name, j) for i, name, j in self.truth.relations if i == n and name != "between"]
        hides = [j for name, j in of if name == "hides"]
        hidden = [i for i, name, j in self.truth.relations if j == n and name == "hides"]
        if hides and (not hidden or self.rng.random() < 0.6):
            return f"{self.rng.choice(_HIDES)} {self.others[_first(hides, n) - 1]}"
        if hidden:
            return f"{self.rng.choice(_HIDDEN)} {self.others[_first(hidden, n) - 1]}"
        of = [(name, j) for name, j in of if name in _RELATIONS]
        resting = any(name == "on" for name, _ in of)
        if not of or (not resting and self.rng.random() < 0.45):
            return ""
        odds = np.array([_RELATIONS[name] / abs(n - j) ** 2 for name, j in of])
        name, j = of[int(self.rng.choice(len(of), p=odds / odds.sum()))]
        return f"{PHRASES[name][0]} {self.others[j - 1]}"


def _first(numbers: list[int], n: int) -> int:
    """The number that is mentioned nearest to n."""
    return min(numbers, key=lambda j: (abs(j - n), j))
