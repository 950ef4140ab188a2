"""A second layout of the same instruction, to measure what an instruction leaves open.

An instruction states relations such as left of or behind, not cells; so the layout of a perfect planner agrees
with the ground truth no better than two independent layouts do. This module samples the second one: the same
subjects under a new camera, at new random yaws and positions, then swapped until all relations of the
instruction hold (and its order of mention is still a walk from neighbour to neighbour). The scene is rendered,
and accepted only if the relations in the image include every stated one.

Read next: `macro/scenes/layout/placement.py` (slots), `macro/scenes/ground_truth/relations.py`, `scenes.py`.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from macro.scenes.graph import Camera, Scene, Subject
from macro.scenes.ground_truth import annotate
from macro.scenes.ground_truth.relations import Extents
from macro.scenes.language.prompt_parser import names_in_instructions, parse_prompt
from macro.scenes.layout.arrangement import usual_size
from macro.scenes.layout.collision import collisions, gaps, hull_of
from macro.scenes.layout.placement import (
    ground_points,
    projected_box,
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

TRIES = 10  # maximum number of renders
EXCHANGES = 600
_STRIDE = 3.0  # the walk goes to a neighbour at most this many times as far away as the nearest

Claims = frozenset[tuple]  # (i, name, j) or (i, "between", (j, k)) in subject numbers


def another(scene: Scene, truth: Truth, prompt: str, rng: np.random.Generator, size: int = 128) -> Grid | None:
    """The layout of another scene of these subjects that satisfies the prompt; None if none is found."""
    claims = frozenset(parse_prompt(prompt, names_in_instructions(truth)).relations)
    riders = supports_of(scene.subjects)
    for _ in range(TRIES):
        camera = view_of(rng, len(scene.subjects), usual_size(scene.subjects))
        subjects = _arranged(rng, scene.subjects, riders, camera, claims)
        if subjects is None:
            continue
        redrawn = replace(scene, subjects=subjects, camera=camera, seed=int(rng.integers(2**31)))
        grid, found = _seen(redrawn, size)
        if claims <= found and len(np.unique(grid[grid > 0])) == len(subjects):
            return grid
    return None


def exchanged_image(scene: Scene, i: int, j: int, size: int = 128) -> UInt8[np.ndarray, "h w 3"]:
    """The scene with the positions and sizes of subjects `i` and `j` (from 0) swapped."""
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
    """Layout and relations of a scene, from its rendered image."""
    _, truth = next(render_with_truth([scene], size, size, rays=1))
    return annotate.layout(truth.masks, truth.boxes), set(truth.relations)


# ---- placing ----


@dataclass(frozen=True)
class _Place:
    """A placed subject: its box in the image, distance, foot on the ground and extents along `DIRECTIONS` (metres)."""

    box: tuple[float, ...]
    distance: float
    ground: tuple[float, float]
    hull: Float[np.ndarray, "d"]


def _arranged(
    rng: np.random.Generator,
    subjects: tuple[Subject, ...],
    riders: dict[int, int],
    camera: Camera,
    claims: Claims,
) -> tuple[Subject, ...] | None:
    """The subjects at new positions where the claims seem to hold; None if no sequence of swaps led there."""
    turned = [
        replace(s, yaw=float(rng.choice([-1, 1]) * rng.uniform(0.35, 1.15)), pose=float(rng.random())) for s in subjects
    ]
    standing = [i for i in range(len(subjects)) if i not in riders]
    places = slots(rng, len(standing), share(len(standing) + 0.5 * len(riders)))
    options = {
        (i, slot): replace(turned[i], position=(x, z), height=0.0)
        for i in standing
        for slot, (x, z) in enumerate(ground_points(camera, *places.T).tolist())
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
        # Sometimes accepts a worse swap, to leave local minima.
        if now <= wrong or (now == wrong + 1 and rng.random() < 0.05):
            order, wrong = tried, now
    if wrong:
        return None
    placed = list(turned)
    for i, slot in zip(standing, order, strict=True):
        placed[i] = options[i, slot]
    for rider, support in riders.items():
        placed[rider] = put_on(turned[rider], placed[support], rng)
    return None if collisions(placed) else tuple(placed)


def _place(subject: Subject, camera: Camera) -> _Place:
    distance = np.linalg.norm(world_box(subject).mean(0) - camera.eye)
    ground = tuple(map(float, subject.position))
    return _Place(tuple(projected_box(camera, subject)), float(distance), ground, hull_of(subject))


def _wrong(standing: list[int], order: list[int], seats: dict, riders: dict[int, int], claims: Claims) -> int:
    """The number of claims, steps of the walk and distances violated with subject `standing[k]` in slot `order[k]`."""
    at = {i: seats[i, slot] for i, slot in zip(standing, order, strict=True)}
    hulls = np.array([place.hull for place in at.values()])
    met = int(np.triu(gaps(hulls[:, None], hulls) < 0, 1).sum())
    at |= {rider: at[support] for rider, support in riders.items()}
    places = [at[i] for i in range(len(at))]
    extents = Extents.from_boxes(np.array([p.box for p in places]), np.array([p.distance for p in places]))
    pairs = extents.pairs()
    broken = sum(
        not (extents.between(i - 1, j[0] - 1, j[1] - 1) if isinstance(j, tuple) else pairs[name][i - 1, j - 1])
        for i, name, j in claims
        if name != "on"
    )
    return met + broken + _strides(np.array([place.ground for place in places]))


def _strides(feet: Float[np.ndarray, "s 2"]) -> int:
    """The number of steps of the walk 1, 2, 3, ... that skip a much nearer subject."""
    away = np.linalg.norm(feet[:, None] - feet[None], axis=-1)
    return sum(bool(away[n, n + 1] > _STRIDE * away[n, n + 1 :].min() + 1e-6) for n in range(len(feet) - 1))
