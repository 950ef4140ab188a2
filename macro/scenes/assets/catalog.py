"""The kinds of subjects: `KINDS[name](pose)` gives the 3 to 7 primitives of one subject.

A kind is a compound that is recognisable by its outline. Pose 0..1 moves a part of it: a head turns, an arm
lifts, sails go round. `toy_size` says how large a kind is beside another.
Read next: `animals.py` and `objects.py` (the kinds), `parts.py` (what they are built from).
"""

import functools

from macro.scenes.assets import objects
from macro.scenes.assets.animals import ANIMALS
from macro.scenes.assets.parts import Builders, box_of

_BUILDERS: dict[str, Builders] = {
    "animal": ANIMALS,
    "toy": objects.TOYS,
    "vehicle": objects.VEHICLES,
    "building": objects.BUILDINGS,
    "furniture": objects.FURNITURE,
    "plant": objects.PLANTS,
    "food": objects.FOOD,
    "household": objects.HOUSEHOLD,
}
GROUPS: dict[str, tuple[str, ...]] = {group: tuple(kinds) for group, kinds in _BUILDERS.items()}
KINDS: Builders = {kind: build for kinds in _BUILDERS.values() for kind, build in kinds.items()}

# Kinds with a face: the characters of a story, and stand-ins for people.
FIGURES: tuple[str, ...] = (*GROUPS["animal"], "robot", "snowman")
OBJECTS: tuple[str, ...] = tuple(kind for kind in KINDS if kind not in FIGURES)

# Kinds that can carry others, and the height of their flat top in units of the kind.
SUPPORTS: dict[str, float] = {"table": 0.61, "stool": 0.69, "crate": 0.72}

# Largest extent of the real thing, metres.
REAL_SIZES: dict[str, float] = {
    "dog": 0.9, "cat": 0.5, "rabbit": 0.4, "bear": 1.8, "elephant": 4.0, "giraffe": 5.0, "penguin": 0.8, "duck": 0.45,
    "fish": 0.35, "turtle": 0.5, "snail": 0.12, "robot": 1.5, "snowman": 1.6, "drum": 0.5, "guitar": 1.0, "car": 4.2,
    "bus": 10.0, "truck": 7.5, "train": 12.0, "plane": 11.0, "boat": 6.0, "rocket": 12.0, "house": 9.0, "castle": 14.0,
    "windmill": 12.0, "chair": 0.9, "table": 1.3, "stool": 0.6, "lamp": 0.6, "tree": 7.0, "pine": 9.0, "cactus": 1.4,
    "flower": 0.45, "mushroom": 0.15, "cake": 0.35, "ice cream": 0.18, "teapot": 0.25, "bottle": 0.3, "umbrella": 0.95,
    "crate": 0.7,
}  # fmt: skip


@functools.cache
def unit_size(kind: str) -> float:
    """Largest extent of a kind as it is built, at pose 0.5: about 1."""
    low, high = box_of(KINDS[kind](0.5))
    return float((high - low).max())


def toy_size(kind: str, exponent: float = 0.25) -> float:
    """Largest extent of a kind in the scenes' toy world, metres: the real one to the power of `exponent`.

    Real sizes span 1 to 120, and a snail beside a castle would be a speck. The fourth root keeps their order and
    makes 16 times as large twice as large: all kinds lie between 0.59 (snail) and 1.93 (castle), about 1 to 3.3. So
    the smallest still covers its hundredth of an image of 64 to 128 pixels. Crowded scenes take a lower exponent.
    """
    return REAL_SIZES[kind] ** exponent
