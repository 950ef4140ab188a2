"""The vocabulary of instructions, chains of thought and questions, a few hundred words, and when each is true.

All words are lower case with single spaces, so that a small BPE gives about one token a word. Names of
subjects are unambiguous: "robot" where there is one, "red robot" where colour distinguishes them, or none.
Read next: `captions.py`, `questions.py`.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from macro.scenes.assets.appearance import PLACES
from macro.scenes.assets.palettes import colour_distance
from macro.scenes.graph import Scene, Surroundings
from macro.scenes.layout.placement import horizon_of
from macro.sentence.spans import Truth

NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip

ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip

PHRASES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "in front of": ("in front of",),
    "behind": ("behind",),
    "on": ("on", "on top of"),
    "next to": ("next to", "beside"),
    "far from": ("far from",),
}

# Weights for choosing among several relations that hold.
RELATION_WEIGHTS = {
    "on": 8.0, "in front of": 3.0, "behind": 3.0, "between": 3.0, "left of": 2.0, "right of": 2.0, "next to": 2.0,
    "far from": 0.3,
}  # fmt: skip

TEXTURE_WORDS = {"plain": "", "stripe": "striped", "check": "checked", "dot": "dotted", "noise": "speckled"}

_PLURALS = {"fish": "fish", "bus": "buses", "snowman": "snowmen"}


def plural(kind: str) -> str:
    return _PLURALS.get(kind, kind + "s")


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"; "" for an empty list."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def a_or_an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def colour_words(truth: Truth) -> tuple[str, ...]:
    """The colour of each subject in this image: "red", "red and blue" where neither has half of it."""
    return tuple(map(listed, truth.colours))


def phrase_of(truth: Truth, subject: int, full: bool = True) -> str:
    """ "red dog", or "striped red dog" where `full`, for a subject, from 0."""
    texture = TEXTURE_WORDS[truth.textures[subject]] if full else ""
    return " ".join(f"{texture} {colour_words(truth)[subject]} {truth.kinds[subject]}".split())


def plain_nouns(truth: Truth) -> tuple[str | None, ...]:
    """ "robot" for a subject of a unique kind, else None."""
    shared = Counter(truth.kinds)
    return tuple(kind if shared[kind] == 1 else None for kind in truth.kinds)


def coloured_nouns(truth: Truth) -> tuple[str | None, ...]:
    """ "red robot", "red and blue robot"; None where another one of its kind has the same colours, or more or fewer."""

    def alike(i: int, j: int) -> bool:
        one, other = set(truth.colours[i]), set(truth.colours[j])
        return truth.kinds[i] == truth.kinds[j] and (one <= other or other <= one)

    every = range(len(truth.kinds))
    return tuple(
        None if not truth.colours[i] or any(alike(i, j) for j in every if j != i) else f"{words} {truth.kinds[i]}"
        for i, words in enumerate(colour_words(truth))
    )


def distinct_nouns(truth: Truth) -> tuple[str | None, ...]:
    """The shortest noun that only this subject has: "dog", or "red dog" where there are several dogs, or None."""
    return tuple(plain or coloured for plain, coloured in zip(plain_nouns(truth), coloured_nouns(truth), strict=True))


# ---- places ----

_COLUMNS = (("far left", 0.2), ("left", 0.4), ("centre", 0.6), ("right", 0.8), ("far right", 1.0))
_ROWS = (("upper", 0.4), ("", 0.6), ("lower", 1.0))


def place(x: float, y: float) -> str:
    """The position of a centroid (0..1 from the upper left): "upper far left", "centre", "lower right"."""
    column = next(word for word, end in _COLUMNS if x <= end)
    row = next(word for word, end in _ROWS if y <= end)
    return f"{row} {column}".strip()


def ranges(scene: Scene) -> tuple[str, ...]:
    """For each subject "near", "far back" or "", by its distance on the ground relative to all subjects.

    All are "" where the farthest is less than a third farther than the nearest.
    """
    distances = ground_distances(scene)
    nearest, farthest = distances.min(), distances.max()
    if farthest < 4 / 3 * nearest:
        return ("",) * len(distances)
    depth = (distances - nearest) / (farthest - nearest)
    return tuple("near" if d <= 0.2 else "far back" if d >= 0.75 else "" for d in depth)


def ground_distances(scene: Scene) -> Float[np.ndarray, "s"]:
    """Distance on the ground from the camera to each subject's foot, metres."""
    feet = np.array([s.position for s in scene.subjects], np.float64).reshape(-1, 2)
    eye = np.array([scene.camera.eye[0], scene.camera.eye[2]])
    return np.linalg.norm(feet - eye, axis=1)


# ---- surroundings ----

# Names of a place's ground and sky; together with the ground's texture they determine the background.
_PLACES = {
    "meadow": ("grass", "blue sky"),
    "beach": ("sand", "blue sky"),
    "snow": ("snow", "blue sky"),
    "plaza": ("grey stone", "blue sky"),
    "evening": ("brown stone", "orange evening sky"),
    "lilac": ("lilac stone", "pink sky"),
    "mint": ("mint stone", "pale sky"),
    "desert": ("orange sand", "pale sky"),
}

_LEAST_SKY = 0.04  # of the image's height


def place_of(surroundings: Surroundings) -> str:
    """The key of `appearance.PLACES` whose ground this is."""
    return min(PLACES, key=lambda name: colour_distance(PLACES[name][0], surroundings.ground))


def ground_words(surroundings: Surroundings) -> str:
    """ "grass", "striped lilac stone"."""
    texture = TEXTURE_WORDS[surroundings.ground_texture]
    return f"{texture} {_PLACES[place_of(surroundings)][0]}".strip()


def sky_words(scene: Scene) -> str | None:
    """The sky with its article: "a pink sky", "an orange evening sky with hills"; None where it is not in view."""
    if horizon_of(scene.camera) < _LEAST_SKY:
        return None
    hills = " with hills" if scene.surroundings.style == "hills" else ""
    return a_or_an(_PLACES[place_of(scene.surroundings)][1] + hills)
