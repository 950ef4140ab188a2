"""The kinds of subjects: `KINDS[name](pose)` gives the 3 to 7 primitives of one subject.

A kind is a compound whose outline alone says what it is. Pose 0..1 moves a part of it: a head turns, an arm lifts,
sails go round. Read next: `creatures.py` and `things.py` (the builders), `parts.py` (what they are made of).
"""

from collections.abc import Callable

from macro.scenes import creatures, things
from macro.scenes.parts import Part

GROUPS: dict[str, tuple[str, ...]] = {
    "animal": (
        "dog", "cat", "rabbit", "bear", "elephant", "giraffe", "penguin", "duck", "fish", "turtle", "snail",
    ),
    "toy": ("robot", "snowman", "drum", "guitar"),
    "vehicle": ("car", "bus", "truck", "train", "plane", "boat", "rocket"),
    "building": ("house", "castle", "windmill"),
    "furniture": ("chair", "table", "lamp"),
    "plant": ("tree", "pine", "cactus", "flower", "mushroom"),
    "food": ("cake", "ice cream"),
    "household": ("teapot", "bottle", "umbrella"),
}


def _builder(name: str) -> Callable[[float], list[Part]]:
    attribute = name.replace(" ", "_")
    return getattr(creatures, attribute, None) or getattr(things, attribute)


KINDS: dict[str, Callable[[float], list[Part]]] = {
    name: _builder(name) for names in GROUPS.values() for name in names
}

# Kinds that carry others, and the height of their flat top in units of the kind.
SUPPORTS: dict[str, float] = {"table": 0.61, "drum": 0.585}
