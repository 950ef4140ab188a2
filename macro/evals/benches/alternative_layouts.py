"""A second layout of the same instruction: what an instruction leaves open, measured.

An instruction says who stands left of or behind whom, not in which cells; so the layout of a perfect planner
agrees with the truth no better than two layouts drawn independently do. Here is the second one: the same
subjects under a new camera, turned anew and sent to new places at random, then exchanged until all that the
instruction says holds (and until the order of mention, a walk from neighbour to neighbour, could be what it
is). The image decides: the scene is rendered, and kept only if the relations read off it include every
stated one.

Read next: `macro/scenes/layout/placement.py` (slots), `macro/scenes/ground_truth/relations.py`, `scenes.py`.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from macro.scenes.graph import Camera, Scene, Subject
from macro.scenes.ground_truth import annotate
from macro.scenes.ground_truth.relations import Extents
from macro.scenes.language.prompt_parser import names_in_instructions, parse_prompt
from macro.scenes.layout.placement import (
    projected_box,
    put,
    put_on,
    share,
    slots,
    supports_of,
    view_of,
    world_box,
)
from macro.scenes.render.batches import render_images, render_with_truth
from macro.sentence.layout import Grid
from macro.sentence.spans import Truth

TRIES = 10  # renders at most
EXCHANGES = 600
_STRIDE = 3.0  # the walk goes to a neighbour at most this many times as far away as the nearest

Claims = frozenset[tuple]  # (i, name, j) or (i, "between", (j, k)) in subject numbers


def another(scene: Scene, truth: Truth, prompt: str, rng: np.random.Generator, size: int = 128) -> Grid | None:
    """The layout of another scene of these subjects of which the prompt is as true; None if none is found."""
    claims = frozenset(parse_prompt(prompt, names_in_instructions(truth)).relations)
    riders = supports_of(scene.subjects)
    for _ in range(TRIES):
        camera = view_of(rng, len(scene.subjects))
        subjects = _arranged(rng, scene.subjects, riders, camera, claims)
        if subjects is None:
            continue
        redrawn = replace(scene, subjects=subjects, camera=camera, seed=int(rng.integers(2**31)))
        grid, found = _seen(redrawn, size)
        if claims <= found and len(np.unique(grid[grid > 0])) == len(subjects):
            return grid
    return None


def exchanged_image(scene: Scene, i: int, j: int, size: int = 128) -> UInt8[np.ndarray, "h w 3"]:
    """The scene with subjects `i` and `j` (from 0) in each other's places, as large as the other was."""
    subjects = list(scene.subjects)
    for new, old in ((i, j), (j, i)):
        place = scene.subjects[old]
        moved = replace(scene.subjects[new], position=place.position, height=place.height)
        ratio = _area(place, scene.camera) / _area(moved, scene.camera)
        subjects[new] = replace(moved, scale=moved.scale * ratio**0.5)
    return render_images([replace(scene, subjects=tuple(subjects))], size)[0]


def _area(subject: Subject, camera: Camera) -> float:
    u0, v0, u1, v1 = projected_box(camera, subject)
    return float((u1 - u0) * (v1 - v0))


def _seen(scene: Scene, size: int) -> tuple[Grid, set]:
    """Layout and relations of a scene, by its image."""
    _, truth = next(render_with_truth([scene], size, size, rays=1))
    return annotate.layout(truth.masks, truth.boxes), set(truth.relations)


# ---- placing ----


@dataclass(frozen=True)
class _Place:
    """A subject somewhere: its box in the image, distance from the camera and foot on the ground (metres)."""

    box: tuple[float, ...]
    distance: float
    ground: tuple[float, float]


def _arranged(
    rng: np.random.Generator,
    subjects: tuple[Subject, ...],
    riders: dict[int, int],
    camera: Camera,
    claims: Claims,
) -> tuple[Subject, ...] | None:
    """The subjects at new places where the claims seem to hold; None if exchanges did not get there."""
    turned = [
        replace(s, yaw=float(rng.choice([-1, 1]) * rng.uniform(0.35, 1.15)), pose=float(rng.random())) for s in subjects
    ]
    standing = [i for i in range(len(subjects)) if i not in riders]
    size = share(len(standing) + 0.5 * len(riders))
    places = slots(rng, len(standing), size)
    options = {
        (i, slot): put(turned[i], camera, u, v, width, size * rng.uniform(0.85, 1.12))
        for i in standing
        for slot, (u, v, width) in enumerate(places)
    }
    seats = {key: _place(subject, camera) for key, subject in options.items()}
    order = [int(slot) for slot in rng.permutation(len(standing))]
    wrong = _wrong(standing, order, seats, riders, claims)
    for _ in range(EXCHANGES):
        if not wrong or len(standing) < 2:
            break
        a, b = rng.choice(len(standing), 2, replace=False)
        tried = list(order)
        tried[a], tried[b] = tried[b], tried[a]
        now = _wrong(standing, tried, seats, riders, claims)
        # Now and then one step back, so as not to stay where no single exchange helps.
        if now <= wrong or (now == wrong + 1 and rng.random() < 0.05):
            order, wrong = tried, now
    if wrong:
        return None
    placed = list(turned)
    for i, slot in zip(standing, order, strict=True):
        placed[i] = options[i, slot]
    for rider, support in riders.items():
        placed[rider] = put_on(turned[rider], placed[support], rng, rng.uniform(0.95, 1.25))
    return tuple(placed)


def _place(subject: Subject, camera: Camera) -> _Place:
    distance = np.linalg.norm(world_box(subject).mean(0) - camera.eye)
    return _Place(tuple(projected_box(camera, subject)), float(distance), tuple(map(float, subject.position)))


def _wrong(standing: list[int], order: list[int], seats: dict, riders: dict[int, int], claims: Claims) -> int:
    """How many claims, and steps of the walk, do not hold with subject `standing[k]` in slot `order[k]`."""
    at = {i: seats[i, slot] for i, slot in zip(standing, order, strict=True)}
    at |= {rider: at[support] for rider, support in riders.items()}
    places = [at[i] for i in range(len(at))]
    extents = Extents.from_boxes(np.array([p.box for p in places]), np.array([p.distance for p in places]))
    pairs = extents.pairs()
    broken = sum(
        not (extents.between(i - 1, j[0] - 1, j[1] - 1) if isinstance(j, tuple) else pairs[name][i - 1, j - 1])
        for i, name, j in claims
        if name != "on"
    )
    return broken + _strides(np.array([place.ground for place in places]))


def _strides(feet: Float[np.ndarray, "s 2"]) -> int:
    """How many steps of the walk 1, 2, 3, ... pass by a subject that is far nearer."""
    away = np.linalg.norm(feet[:, None] - feet[None], axis=-1)
    return sum(bool(away[n, n + 1] > _STRIDE * away[n, n + 1 :].min() + 1e-6) for n in range(len(feet) - 1))
