"""The kinds of subjects: `KINDS[name](pose)` gives the 3 to 7 primitives of one subject.

A kind is a compound whose outline alone says what it is. Pose 0..1 moves a part of it: a head turns, an arm
lifts, sails go round. Read next: `creatures.py` and `objects.py` (the builders), `parts.py` (their parts).
"""

from collections.abc import Callable

from macro.scenes.assets import creatures, objects
from macro.scenes.assets.parts import Part

GROUPS: dict[str, tuple[str, ...]] = {
    "animal": (
        "dog", "cat", "rabbit", "bear", "elephant", "giraffe", "penguin", "duck", "fish", "turtle", "snail",
    ),
    "toy": ("robot", "snowman", "drum", "guitar"),
    "vehicle": ("car", "bus", "truck", "train", "plane", "boat", "rocket"),
    "building": ("house", "castle", "windmill"),
    "furniture": ("chair", "table", "stool", "lamp"),
    "plant": ("tree", "pine", "cactus", "flower", "mushroom"),
    "food": ("cake", "ice cream"),
    "household": ("teapot", "bottle", "umbrella", "crate"),
}

KINDS: dict[str, Callable[[float], list[Part]]] = {
    "dog": creatures.dog, "cat": creatures.cat, "rabbit": creatures.rabbit, "bear": creatures.bear,
    "elephant": creatures.elephant, "giraffe": creatures.giraffe, "penguin": creatures.penguin,
    "duck": creatures.duck, "fish": creatures.fish, "turtle": creatures.turtle, "snail": creatures.snail,
    "robot": creatures.robot, "snowman": creatures.snowman, "drum": objects.drum, "guitar": objects.guitar,
    "car": objects.car, "bus": objects.bus, "truck": objects.truck, "train": objects.train,
    "plane": objects.plane, "boat": objects.boat, "rocket": objects.rocket,
    "house": objects.house, "castle": objects.castle, "windmill": objects.windmill,
    "chair": objects.chair, "table": objects.table, "stool": objects.stool, "lamp": objects.lamp,
    "tree": objects.tree, "pine": objects.pine, "cactus": objects.cactus, "flower": objects.flower,
    "mushroom": objects.mushroom,
    "cake": objects.cake, "ice cream": objects.ice_cream,
    "teapot": objects.teapot, "bottle": objects.bottle, "umbrella": objects.umbrella, "crate": objects.crate,
}

# Kinds with a face: who acts in a story, who stands in for people.
FIGURES: tuple[str, ...] = (*GROUPS["animal"], "robot", "snowman")
OBJECTS: tuple[str, ...] = tuple(kind for kind in KINDS if kind not in FIGURES)

# Kinds that carry others, and the height of their flat top in units of the kind.
SUPPORTS: dict[str, float] = {"table": 0.61, "stool": 0.69, "crate": 0.72}
