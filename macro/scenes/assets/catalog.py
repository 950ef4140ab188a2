"""The kinds of subjects: `KINDS[name](pose)` gives the 3 to 7 primitives of one subject.

A kind is a compound that is recognisable by its outline. Pose 0..1 moves a part of it: a head turns, an arm
lifts, sails go round. Read next: `animals.py` and `objects.py` (the kinds), `parts.py` (what they are built from).
"""

from macro.scenes.assets import objects
from macro.scenes.assets.animals import ANIMALS
from macro.scenes.assets.parts import Builders

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
