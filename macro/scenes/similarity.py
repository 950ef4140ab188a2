"""Similarity of two subjects, surroundings or lights of scenes, 0..1, and the matching of subjects by it.

Identity is what a reference image fixes: kind, palette, texture and decal. Pose, place, size and heading are free.
Another kind or another main colour is another subject, however similar the rest.
Read next: `engines/procedural/judge.py`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from macro.scenes.assets.palettes import CONFUSABLE, colour_distance
from macro.scenes.graph import RGB, Light, Subject, Surroundings
from macro.scenes.render.scene_compiler import sun_direction

_OTHER_KIND, _OTHER_TEXTURE, _OTHER_DECAL = 0.15, 0.75, 0.8  # factors of the similarity where these differ


def colour_similarity(a: RGB, b: RGB) -> float:
    """1 for the same colour, 0 for colours that are not confused (`CONFUSABLE` apart or more)."""
    return max(0.0, 1 - colour_distance(a, b) / CONFUSABLE)


def subject_similarity(a: Subject, b: Subject, dressed: bool = False) -> float:
    """The similarity of two subjects, 0..1.

    Args:
        dressed: whether `b` may wear a cloth, which hides its main colour, second colour and texture.
    """
    accent = colour_similarity(a.palette[2], b.palette[2])
    kind = 1.0 if a.kind == b.kind else _OTHER_KIND
    decal = 1.0 if a.decal == b.decal else _OTHER_DECAL
    if dressed:
        return kind * decal * (0.4 + 0.6 * accent)
    main, second = (colour_similarity(a.palette[i], b.palette[i]) for i in (0, 1))
    texture = 1.0 if a.texture == b.texture else _OTHER_TEXTURE
    return kind * decal * texture * (0.2 + 0.8 * main) * (0.7 + 0.2 * second + 0.1 * accent)


def dressed(subject: Subject, cloth: Surroundings) -> Subject:
    """The subject wearing a textile, given as the surroundings of an image that shows only their ground."""
    palette = (cloth.ground, cloth.ground_second, subject.palette[2])
    return replace(subject, palette=palette, texture=cloth.ground_texture)


def matched(wanted: Sequence[Subject], there: Sequence[Subject], dressed: Sequence[bool] = ()) -> list[int | None]:
    """Greedy one-to-one matching, most similar pairs first: for each of `wanted` an index into `there`, or None.

    Args:
        dressed: for each of `wanted`, whether it may wear a cloth there; by default none does.
    """
    worn = list(dressed) or [False] * len(wanted)
    alike = {
        (i, j): subject_similarity(a, b, worn[i]) for i, a in enumerate(wanted) for j, b in enumerate(there)
    }
    found: list[int | None] = [None] * len(wanted)
    for i, j in sorted(alike, key=lambda pair: (-alike[pair], pair)):
        if found[i] is None and j not in found:
            found[i] = j
    return found


def surroundings_similarity(a: Surroundings, b: Surroundings) -> float:
    """The similarity of ground and sky."""
    pairs = ((a.ground, b.ground, 0.5), (a.ground_second, b.ground_second, 0.1), (a.zenith, b.zenith, 0.2))
    colours = sum(share * colour_similarity(x, y) for x, y, share in (*pairs, (a.horizon, b.horizon, 0.2)))
    texture = 1.0 if a.ground_texture == b.ground_texture else _OTHER_TEXTURE
    return colours * texture * (1.0 if a.style == b.style else 0.8)


def light_similarity(a: Light, b: Light) -> float:
    """The similarity of two lights' directions, colours and strengths."""
    apart = np.arccos(np.clip(sun_direction(a) @ sun_direction(b), -1, 1))
    direction = max(0.0, 1 - float(apart) / np.deg2rad(60))
    colour = max(0.0, 1 - abs(a.warmth - b.warmth) / 0.6)
    strength = max(0.0, 1 - abs(a.strength - b.strength) / 0.4)
    return float((direction + colour + strength) / 3)
