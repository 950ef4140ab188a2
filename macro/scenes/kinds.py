"""The kinds of subjects: `KINDS[name](pose)` gives the 3 to 7 primitives of one subject.

A kind is a compound whose outline alone says what it is. Pose 0..1 moves a part of it: a head turns, an arm
lifts, sails go round. Read next: `creatures.py` and `things.py` (the builders), `parts.py` (their parts).
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
    "furniture": ("chair", "table", "stool", "lamp"),
    "plant": ("tree", "pine", "cactus", "flower", "mushroom"),
    "food": ("cake", "ice cream"),
    "household": ("teapot", "bottle", "umbrella", "crate"),
}

KINDS: dict[str, Callable[[float], list[Part]]] = {
    "dog": creatures.dog, "cat": creatures.cat, "rabbit": creatures.rabbit, "bear": creatures.bear,
    "elephant": creatures.elephant, "giraffe": creatures.giraffe, "penguin": creatures.penguin,
    "duck": creatures.duck, "fish": creatures.fish, "turtle": creatures.turtle, "snail": creatures.snail,
    "robot": creatures.robot, "snowman": creatures.snowman, "drum": things.drum, "guitar": things.guitar,
    "car": things.car, "bus": things.bus, "truck": things.truck, "train": things.train,
    "plane": things.plane, "boat": things.boat, "rocket": things.rocket,
    "house": things.house, "castle": things.castle, "windmill": things.windmill,
    "chair": things.chair, "table": things.table, "stool": things.stool, "lamp": things.lamp,
    "tree": things.tree, "pine": things.pine, "cactus": things.cactus, "flower": things.flower,
    "mushroom": things.mushroom,
    "cake": things.cake, "ice cream": things.ice_cream,
    "teapot": things.teapot, "bottle": things.bottle, "umbrella": things.umbrella, "crate": things.crate,
}

# Kinds with a face: who acts in a story, who stands in for people.
FIGURES: tuple[str, ...] = (*GROUPS["animal"], "robot", "snowman")
OBJECTS: tuple[str, ...] = tuple(kind for kind in KINDS if kind not in FIGURES)

# Kinds that carry others, and the height of their flat top in units of the kind.
SUPPORTS: dict[str, float] = {"table": 0.61, "stool": 0.69, "crate": 0.72}
