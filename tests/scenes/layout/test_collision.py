"""No subject reaches into another, in scenes of any maker: points inside one's parts are outside all others' parts.

The points and the test of being inside come from the arrays that are rendered, not from `collision.py`.
"""

from dataclasses import replace

import numpy as np
import pytest

from macro.engines.procedural import composition
from macro.scenes import edits, storybook
from macro.scenes.animation import motion
from macro.scenes.layout import arrangement
from macro.scenes.layout.collision import DIRECTIONS, collide, collisions, extents_of, foot_of
from macro.scenes.layout.layout_sampler import jitter, sample_scene
from macro.scenes.render import cameras
from macro.scenes.render.primitives import BOX, QUADRIC
from macro.scenes.render.scene_compiler import compile_scene

POINTS = 150  # inside each part


def local_points(family, shape, rng, shrink=0.98):
    """[k, 3] points inside a primitive, in its own frame, a little away from its surface."""
    out = rng.uniform(-1, 1, (2 * POINTS, 3))
    middle = np.zeros(3)
    if family == QUADRIC:
        q0, q1, q2, low, high = shape
        y, angle = rng.uniform(low, high, len(out)), rng.uniform(0, 2 * np.pi, len(out))
        radius = np.sqrt(np.maximum(q0 + q1 * y + q2 * y * y, 0) * rng.random(len(out)))
        out = np.stack([radius * np.cos(angle), y, radius * np.sin(angle)], 1)
        middle = np.array([0, (low + high) / 2, 0])
    elif family != BOX:
        out *= [1, 1 + shape[0], 1]
        over = np.abs(out[:, 1]) - shape[0]
        out = out[out[:, 0] ** 2 + np.maximum(over, 0) ** 2 + out[:, 2] ** 2 <= 1]
    return (middle + shrink * (out - middle))[:POINTS]


def is_inside(families, shapes, frames, points):
    """[k]: which world points are inside any of the primitives."""
    x, y, z = np.moveaxis(np.einsum("pij,kj->pki", frames[:, :, :3], points) + frames[:, None, :, 3], -1, 0)
    q0, q1, q2, low, high = shapes.T[:, :, None]
    quadric = (x * x + z * z <= q0 + q1 * y + q2 * y * y) & (y >= low) & (y <= high)
    box = np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z)) <= 1
    capsule = x * x + np.maximum(np.abs(y) - q0, 0) ** 2 + z * z <= 1
    family = families[:, None]
    return np.where(family == QUADRIC, quadric, np.where(family == BOX, box, capsule)).any(0)


def world_points(compiled, part, rng, shrink=0.98):
    frame = compiled["frame"][part].astype(np.float64)
    points = local_points(compiled["family"][part], compiled["shape"][part], rng, shrink)
    return np.linalg.solve(frame[:, :3], (points - frame[:, 3]).T).T


def grown_together(scene, rng):
    """Names of subjects of which a point is inside another."""
    compiled = compile_scene(scene)
    owner, found = compiled["owner"], []
    for part in np.flatnonzero(owner >= 0):
        others = (owner >= 0) & (owner != owner[part])
        primitives = (compiled[name][others] for name in ("family", "shape", "frame"))
        if others.any() and is_inside(*primitives, world_points(compiled, part, rng)).any():
            found.append(scene.subjects[owner[part]].kind)
    return found


def made(seed):
    """Scenes by every maker, with about fifty subjects."""
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, int(rng.integers(2, 13)))
    yield scene
    yield jitter(scene, rng)
    for operation in ("add", "replace", "move"):
        edit = edits.propose(scene, operation, rng)
        if edit is not None:
            yield edit.after
    yield from (leaf.scene for leaf in storybook.tale(rng).leaves[1:4])
    script = motion.write(rng, 3)
    yield from (script.at(float(t)) for t in rng.uniform(0, script.beats[-1].stop, 2))
    yield cameras.turntable(rng, 3)
    yield cameras.place(rng)
    yield composition.pooled_scene("style", seed, 0)
    references = [sample_scene(rng, 1).subjects[0] for _ in range(4)]
    camera, placed = arrangement.in_rows(rng, arrangement.sized(rng, references, 0.1))
    yield replace(scene, subjects=tuple(placed), camera=camera)


def check(seeds):
    rng, count = np.random.default_rng(0), 0
    for seed in seeds:
        for n, scene in enumerate(made(seed)):
            assert not grown_together(scene, rng), (seed, n)
            assert not collisions(scene.subjects), (seed, n)
            count += len(scene.subjects)
    return count


def test_no_maker_of_scenes_lets_anyone_grow_into_another():
    assert check([1, 2]) > 60


@pytest.mark.slow
def test_no_maker_lets_anyone_grow_into_another_at_many_seeds():
    assert check(range(100, 120)) > 800


def test_extents_hold_all_points_and_little_more():
    rng, excess = np.random.default_rng(3), []
    for seed in range(6):
        scene = sample_scene(np.random.default_rng(seed), 6)
        compiled = compile_scene(scene)
        for n, subject in enumerate(scene.subjects):
            parts = np.flatnonzero(compiled["owner"] == n)
            points = np.concatenate([world_points(compiled, part, rng, 1.0) for part in parts]) - foot_of(subject)
            own = extents_of(subject)
            farthest = (points @ DIRECTIONS.T).max(0) / subject.scale
            assert (farthest < own.hull + 1e-4).all()
            assert np.hypot(points[:, 0], points[:, 2]).max() < own.reach * subject.scale + 1e-4
            excess.append((own.hull - farthest).mean())
    assert np.mean(excess) < 0.03


def test_collisions_are_found():
    """Pairs pushed into each other by random ways: whoever shares points with another is said to."""
    rng, found = np.random.default_rng(5), 0
    for seed in range(40):
        scene = sample_scene(np.random.default_rng(seed), 2)
        one, other = scene.subjects
        x, z = np.array(other.position) + rng.uniform(-0.9, 0.9, 2)
        moved = replace(one, position=(float(x), float(z)))
        meet = bool(grown_together(replace(scene, subjects=(moved, other)), rng))
        assert collide(moved, other) or not meet
        found += meet
    assert 8 < found < 38
