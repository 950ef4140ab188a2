"""How scenes are drawn at random (the types themselves are in `graph.py` and are offered here too)."""

from macro.scenes.graph import (
    DECALS,
    RELATIONS,
    TEXTURES,
    Camera,
    Light,
    Relation,
    Scene,
    Subject,
    Surroundings,
)

__all__ = [
    "DECALS", "RELATIONS", "TEXTURES", "Camera", "Light", "Relation", "Scene", "Subject", "Surroundings",
]
