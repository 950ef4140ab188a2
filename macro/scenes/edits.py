"""Edits of a scene: one plausible change of its graph, with everything else unchanged.

    add         a new subject on free ground or on a free table      remove    one that carries no other
    replace     another kind at the same place, in its own size      move      unchanged, to free ground
    recolour    another main colour

Camera, light, surroundings, seed and all other subjects are unchanged, so the two renderings differ only where the
edited subject was or is, and where its shadow falls. A new subject becomes number 1, as the images of a sentence are
numbered before the image they are added to; the others keep their order.
Read next: `edit_instructions.py` (its instruction), `macro/engines/edit.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from macro.scenes.assets import appearance
from macro.scenes.assets.catalog import KINDS
from macro.scenes.assets.palettes import COLOURS, colour_distance
from macro.scenes.graph import Scene, Subject
from macro.scenes.layout.arrangement import MOST_HIDDEN, SMALLEST
from macro.scenes.layout.collision import collide, extents_of
from macro.scenes.layout.layout_sampler import yaw_of
from macro.scenes.layout.placement import (
    can_carry,
    ground_points,
    hidden_shares,
    horizon_of,
    natural_scale,
    projected_box,
    put_on,
    stands_on,
)
from macro.scenes.render.scene_compiler import MAX_SUBJECTS

OPERATIONS = ("add", "remove", "replace", "move", "recolour")

_TRIES = 60  # positions tried for a new or moved subject
_HIDDEN = 0.2  # of the edited subject's box, at most
_FARTHER = 0.18  # of the image: the least distance of a move


@dataclass(frozen=True)
class Edit:
    """One change.

    Attributes:
        operation: one of OPERATIONS.
        before, after: the scenes.
        subject: its number in `before`; None if it is added.
        result: its number in `after`; None if it is removed.
        origins: for each subject of `after` its number in `before`; None if it is new.
        colour: the new main colour's name, if it is recoloured.
    """

    operation: str
    before: Scene
    after: Scene
    subject: int | None
    result: int | None
    origins: tuple[int | None, ...]
    colour: str | None = None


def propose(scene: Scene, operation: str, rng: np.random.Generator) -> Edit | None:
    """An edit of this kind; None if the scene has no room, no subject or no colour for it.

    Args:
        operation: one of OPERATIONS.
    """
    return _PROPOSE[operation](scene, rng)


def _add(scene: Scene, rng: np.random.Generator) -> Edit | None:
    newcomer = _newcomer(scene, rng)
    if newcomer is None or len(scene.subjects) == MAX_SUBJECTS:
        return None
    place = len(scene.subjects)
    free = [s for s in scene.subjects if can_carry(s.kind, newcomer.kind) and not _carries(scene, s)]
    if free and rng.random() < 0.5:
        riding = put_on(newcomer, free[int(rng.integers(len(free)))], rng)
        if _fits(scene, [*scene.subjects, riding], place):
            return _edit("add", scene, [*scene.subjects, riding], None, place)
    for _ in range(_TRIES):
        standing = replace(newcomer, position=_foot(scene, rng))
        if _fits(scene, [*scene.subjects, standing], place):
            return _edit("add", scene, [*scene.subjects, standing], None, place)
    return None


def _remove(scene: Scene, rng: np.random.Generator) -> Edit | None:
    loose = _loose(scene)
    if len(scene.subjects) < 2 or not loose:
        return None
    place = int(rng.choice(loose))
    return _edit("remove", scene, [*scene.subjects[:place], *scene.subjects[place + 1 :]], place, None)


def _replace(scene: Scene, rng: np.random.Generator) -> Edit | None:
    newcomer = _newcomer(scene, rng)
    for place in rng.permutation(_loose(scene)).tolist():
        old = scene.subjects[place]
        under = next((s for s in scene.subjects if stands_on(old, s)), None)
        if newcomer is None or (under is not None and not can_carry(under.kind, newcomer.kind)):
            continue
        new = replace(newcomer, position=old.position) if under is None else put_on(newcomer, under, rng)
        placed = [*scene.subjects[:place], new, *scene.subjects[place + 1 :]]
        if _fits(scene, placed, place):
            return _edit("replace", scene, placed, place, place)
    return None


def _move(scene: Scene, rng: np.random.Generator) -> Edit | None:
    if len(scene.subjects) < 2:
        return None
    for place in rng.permutation(_loose(scene)).tolist():
        old = scene.subjects[place]
        start = _middle(scene, old)
        for _ in range(_TRIES // 2):
            new = replace(old, position=_foot(scene, rng), height=0.0)
            placed = [*scene.subjects[:place], new, *scene.subjects[place + 1 :]]
            if np.hypot(*(_middle(scene, new) - start)) > _FARTHER and _fits(scene, placed, place):
                return _edit("move", scene, placed, place, place)
    return None


def _recolour(scene: Scene, rng: np.random.Generator) -> Edit | None:
    taken = {s.palette[0] for s in scene.subjects}
    for place in rng.permutation(len(scene.subjects)).tolist():
        old = scene.subjects[place]
        ground = scene.surroundings.ground
        names = [
            name
            for name, rgb in COLOURS.items()
            if rgb not in taken
            and colour_distance(rgb, ground) > appearance.APART_FROM_GROUND
            and min(colour_distance(rgb, own) for own in old.palette) > appearance.APART_WITHIN
        ]
        if names:
            name = str(rng.choice(names))
            new = replace(old, palette=(COLOURS[name], *old.palette[1:]))
            placed = [*scene.subjects[:place], new, *scene.subjects[place + 1 :]]
            return replace(_edit("recolour", scene, placed, place, place), colour=name)
    return None


_PROPOSE: dict[str, Callable[[Scene, np.random.Generator], Edit | None]] = {
    "add": _add, "remove": _remove, "replace": _replace, "move": _move, "recolour": _recolour,
}  # fmt: skip


# ---- which subjects may be edited, and how ----


def _carries(scene: Scene, subject: Subject) -> bool:
    return any(stands_on(other, subject) for other in scene.subjects)


def _loose(scene: Scene) -> list[int]:
    """Indices of the subjects that carry no other."""
    return [i for i, subject in enumerate(scene.subjects) if not _carries(scene, subject)]


def _newcomer(scene: Scene, rng: np.random.Generator) -> Subject | None:
    """A subject of a kind and a main colour that the scene does not have yet, without a position."""
    kinds, taken = {s.kind for s in scene.subjects}, {s.palette[0] for s in scene.subjects}
    palettes = appearance.palettes(rng, len(COLOURS), scene.surroundings)
    palette = next((p for p in palettes if p[0] not in taken), None)
    if palette is None:
        return None
    kind = str(rng.choice([kind for kind in KINDS if kind not in kinds]))
    # As large beside the others as its kind is: how much larger than usual are they?
    ratio = np.exp(np.mean([np.log(s.scale / natural_scale(s.kind)) for s in scene.subjects]))
    scale = float(natural_scale(kind) * ratio)
    bare = {"scale": scale, "position": (0.0, 0.0), "height": 0.0, "number": 1, "seed": appearance.seed(rng)}
    return Subject(
        kind, palette, appearance.texture(rng), appearance.decal(rng), yaw=yaw_of(rng), pose=float(rng.random()), **bare
    )


# ---- where there is room ----


def _foot(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """(x, z) of the visible ground under a random image point."""
    feet = max(horizon_of(scene.camera) + 0.12, 0.3)
    u, v = rng.uniform(0.12, 0.88, 1), rng.uniform(min(feet, 0.8), 0.95, 1)
    ((x, z),) = ground_points(scene.camera, u, v).tolist()
    return x, z


def _middle(scene: Scene, subject: Subject) -> np.ndarray:
    u0, v0, u1, v1 = projected_box(scene.camera, subject)
    return np.array([(u0 + u1) / 2, (v0 + v1) / 2])


def _fits(scene: Scene, placed: Sequence[Subject], place: int) -> bool:
    """Whether the subject at index `place` is in the image, visible, collides with none and hides none too much."""
    subject, camera = placed[place], scene.camera
    u0, v0, u1, v1 = projected_box(camera, subject)
    hidden = hidden_shares(camera, list(placed))
    seen = (u1 - u0) * (v1 - v0) * extents_of(subject).filled * (1 - hidden[place])
    inside = u0 >= 0.01 and u1 <= 0.99 and v0 >= 0.01 and v1 <= 0.99
    if not inside or hidden[place] > _HIDDEN or seen < SMALLEST:
        return False
    others = [i for i in range(len(placed)) if i != place]
    if any(collide(subject, placed[i]) for i in others):
        return False
    # A subject hidden before the edit may stay hidden.
    before = dict(zip(scene.subjects, hidden_shares(camera, list(scene.subjects)), strict=True))
    return all(hidden[i] <= max(MOST_HIDDEN, before[placed[i]]) for i in others)


# ---- the scene after ----


def _edit(operation: str, scene: Scene, placed: Sequence[Subject], place: int | None, now: int | None) -> Edit:
    """The edit that leads to `placed`.

    Args:
        place: index of the edited subject in `scene`, None if new. now: its index in `placed`, None if removed.
    """
    rest = [i for i in range(len(placed)) if i != now]
    before = [i for i in range(len(scene.subjects)) if i != place]
    olds: dict[int, int | None] = dict(zip(rest, before, strict=True))
    order = list(range(len(placed)))
    if now is not None:
        olds[now] = place
        if operation in ("add", "replace"):
            olds[now], order = None, [now, *rest]
    subjects = tuple(replace(placed[i], number=n) for n, i in enumerate(order, 1))
    after = replace(scene, subjects=subjects)
    return Edit(
        operation,
        scene,
        after,
        None if place is None else place + 1,
        None if now is None else order.index(now) + 1,
        tuple(None if olds[i] is None else olds[i] + 1 for i in order),
    )
