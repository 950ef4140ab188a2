"""Edits make sense, are asked for in true and clear words, and change nothing else: graph, pixels, textures."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scenes.drawing import images

from macro.scenes.assets.palettes import COLOURS, colour_distance, colour_name
from macro.scenes.edits import OPERATIONS, propose
from macro.scenes.language import edit_instructions, lexicon
from macro.scenes.layout import layout_sampler
from macro.scenes.layout.placement import stands_on
from macro.scenes.render.batches import render_with_truth
from macro.scenes.render.scene_compiler import compile_scene, sun_direction

SIZE = 64
WORDS = {phrase: name for name, phrases in lexicon.PHRASES.items() for phrase in phrases}


@pytest.fixture(scope="module")
def edits():
    """Eighty proposals, sixteen of each operation, from scenes of 1 to 12 subjects."""
    found = {operation: [] for operation in OPERATIONS}
    seed = 0
    while any(len(each) < 16 for each in found.values()):
        rng = np.random.default_rng(seed)
        scene = layout_sampler.sample_scene(rng, 1 + seed % 12)
        for operation, each in found.items():
            edit = propose(scene, operation, np.random.default_rng([seed, len(each)]))
            if edit is not None and len(each) < 16:
                each.append(edit)
        seed += 1
    return [edit for each in found.values() for edit in each]


@pytest.fixture(scope="module")
def drawn(edits):
    """(edit, truth before, truth after) of every second edit."""
    edits = edits[::2]  # forty: five whole batches
    scenes = [scene for edit in edits for scene in (edit.before, edit.after)]
    truths = [truth for _, truth in render_with_truth(scenes, SIZE, SIZE, rays=1)]
    return list(zip(edits, truths[::2], truths[1::2], strict=True))


def like(subject):
    """All of a subject but its number."""
    return {name: value for name, value in vars(subject).items() if name != "number"}


def test_only_the_edited_subject_differs(edits):
    for edit in edits:
        before, after = edit.before, edit.after
        for part in ("camera", "light", "surroundings", "seed"):
            assert getattr(before, part) == getattr(after, part)
        assert [s.number for s in after.subjects] == list(range(1, len(after.subjects) + 1))
        kept = [(n, origin) for n, origin in enumerate(edit.origins, 1) if origin is not None and n != edit.result]
        for n, origin in kept:
            assert like(after.subjects[n - 1]) == like(before.subjects[origin - 1])
        gone = set(range(1, len(before.subjects) + 1)) - {origin for _, origin in kept}
        assert gone == ({edit.subject} if edit.subject else set())
        more = {"add": 1, "remove": -1}.get(edit.operation, 0)
        assert len(after.subjects) - len(before.subjects) == more
        if edit.operation in ("add", "replace"):
            assert edit.result == 1 and edit.origins[0] is None


def test_what_is_edited_makes_sense(edits):
    for edit in edits:
        before, after = edit.before.subjects, edit.after.subjects
        old = before[edit.subject - 1] if edit.subject else None
        new = after[edit.result - 1] if edit.result else None
        if edit.operation in ("remove", "replace", "move"):
            assert not any(stands_on(other, old) for other in before)
        if edit.operation in ("add", "replace"):
            assert new.kind not in {s.kind for s in before}
            assert new.palette[0] not in {s.palette[0] for s in before}
        if edit.operation == "replace":
            assert new.height == pytest.approx(old.height) and np.hypot(*np.subtract(new.position, old.position)) < 0.5
        if edit.operation == "move":
            assert like(new) | {"position": 0, "height": 0} == like(old) | {"position": 0, "height": 0}
            assert new.height == 0 and new.position != old.position
        if edit.operation == "recolour":
            assert like(new) | {"palette": 0} == like(old) | {"palette": 0}
            assert new.palette == (COLOURS[edit.colour], *old.palette[1:])
            assert colour_distance(new.palette[0], old.palette[0]) > 0.2
            assert edit.colour not in {colour_name(s.palette[0]) for s in before}
        riders = [s for s in after if s.height > 0]
        assert all(any(stands_on(rider, support) for support in after) for rider in riders)


def test_what_nothing_can_be_done_with_is_refused():
    one = layout_sampler.sample_scene(np.random.default_rng(0), 1)
    full = layout_sampler.sample_scene(np.random.default_rng(0), 12)
    assert propose(one, "remove", np.random.default_rng(0)) is None
    assert propose(one, "move", np.random.default_rng(0)) is None
    assert propose(full, "add", np.random.default_rng(0)) is None


def test_textures_of_ground_and_others_stay_where_they_were(edits):
    for edit in edits:
        before, after = compile_scene(edit.before), compile_scene(edit.after)
        np.testing.assert_array_equal(before["ground_phase"], after["ground_phase"])
        for n, origin in enumerate(edit.origins, 1):
            if origin is None:
                assert not (after["phase"][after["owner"] == n - 1][0] == before["phase"]).all(1).any()
                continue
            for name in ("phase", "texture", "family"):
                np.testing.assert_array_equal(
                    after[name][after["owner"] == n - 1], before[name][before["owner"] == origin - 1]
                )


def reach(scene, number, where):
    """Which of the points `where` [..., 3] lie in the shadow of a subject's bounds or in the soft dark under it."""
    compiled, sun = compile_scene(scene), sun_direction(scene.light)
    touched = np.zeros(where.shape[:-1], bool)
    for x, y, z, radius in compiled["bound"][compiled["owner"] == number - 1]:
        towards = np.array([x, y, z]) - where
        along = towards @ sun
        touched |= (np.linalg.norm(towards - along[..., None] * sun, axis=-1) < radius + 0.02) & (along > -radius)
    x, z, radius = compiled["blobs"][number - 1]
    return touched | (np.hypot(where[..., 0] - x, where[..., 2] - z) < 4 * radius)


def test_pixels_that_the_edit_does_not_reach_stay(edits):
    """Outside silhouettes before and after, shadows, and the soft dark under feet, nothing changes by more than 1."""
    picked = edits[::4]
    before, after = (images([getattr(e, at) for e in picked], SIZE, SIZE) for at in ("before", "after"))
    free = []
    for i, edit in enumerate(picked):
        reached = np.zeros((SIZE, SIZE), bool)
        for scene, number, drawn in ((edit.before, edit.subject, before), (edit.after, edit.result, after)):
            if number is not None:
                reached |= drawn["ids"][i] == number
                compiled = compile_scene(scene)
                rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
                tangent = np.tan(compiled["fov"] / 2)
                rays = np.stack([(2 * columns / SIZE - 1) * tangent, (1 - 2 * rows / SIZE) * tangent, 1 + 0 * rows], -1)
                rays = rays @ compiled["basis"] / np.linalg.norm(rays, axis=-1, keepdims=True)
                depth = np.where(np.isfinite(drawn["depth"][i]), drawn["depth"][i], 1e6)
                reached |= reach(scene, number, compiled["eye"] + depth[..., None] * rays)
        changed = np.abs(before["pixels"][i].astype(int) - after["pixels"][i]).max(-1)
        assert changed[reached].max() > 12
        assert changed[~reached].max(initial=0) <= 1, (edit.operation, i)
        free.append((~reached).mean())
    assert np.mean(free) > 0.5


def claimed(prompt, before, after, edit):
    """The claim of a sentence that says where somebody is to stand, as (relation, numbers after)."""
    nouns = {}
    for n, origin in enumerate(edit.origins, 1):
        if origin is not None:
            for noun in (lexicon.plain_nouns(before)[origin - 1], lexicon.coloured_nouns(before)[origin - 1]):
                nouns |= {} if noun is None else {noun: n}
    text = prompt.removesuffix(".").removesuffix(" in <image 1>")
    between = re.search(r" between the ([a-z ]+) and the ([a-z ]+)$", text)
    if between:
        return "between", tuple(sorted(nouns[noun] for noun in between.groups()))
    for phrase in sorted(WORDS, key=len, reverse=True):
        found = re.search(rf" {phrase} the ([a-z ]+)$", text)
        if found:
            return WORDS[phrase], (nouns[found[1]],)
    raise AssertionError(prompt)


def test_words_are_true_and_name_one_thing_each(drawn):
    said = Counter()
    for edit, before, after in drawn:
        for seed in range(4):
            prompt = edit_instructions.instruction(edit, before, after, np.random.default_rng(seed), (2, 3))
            if prompt is None:
                continue
            said[edit.operation] += 1
            numbers = {int(n) for n in re.findall(r"<image (\d+)>", prompt)}
            assert numbers - {1} == ({2, 3} if edit.operation in ("add", "replace") else set())
            if edit.subject is not None:
                old = before.kinds[edit.subject - 1]
                names = [lexicon.plain_nouns(before), lexicon.coloured_nouns(before)]
                assert any(f"the {n[edit.subject - 1]}" in prompt.replace("<image 1> ", "") for n in names), prompt
                if Counter(before.kinds)[old] > 1:
                    assert f"the {old}" not in prompt
            if edit.operation in ("add", "replace"):
                assert f"<image 2> <image 3> {after.kinds[0]}" in prompt
            if edit.operation == "recolour":
                assert re.search(rf"\b{edit.colour}\b", prompt)
                assert after.colours[edit.result - 1] == (edit.colour,)
            if edit.operation in ("add", "move"):
                name, others = claimed(prompt, before, after, edit)
                assert (edit.result, name, others if len(others) > 1 else others[0]) in after.relations
                if edit.operation == "move":
                    old = tuple(sorted(edit.origins[n - 1] for n in others))
                    assert (edit.subject, name, old if len(old) > 1 else old[0]) not in before.relations
    # A recolouring is told only where one sees the new colour: in the image, not in the palette.
    assert all(said[operation] >= (4 if operation == "recolour" else 12) for operation in OPERATIONS), said


def test_wordings_are_many(drawn):
    for operation in OPERATIONS:
        edit, before, after = next(each for each in drawn if each[0].operation == operation)
        rngs = map(np.random.default_rng, range(40))
        said = {edit_instructions.instruction(edit, before, after, rng) for rng in rngs} - {None}
        assert len(said) >= 8 or not said
        assert edit_instructions.thought(edit, before, after).endswith("all else stays. ")


def test_where_nobody_can_be_named_nothing_is_said(drawn):
    """Two dogs of one colour: no words tell which of them goes."""
    edit, before, after = next(each for each in drawn if each[0].operation == "remove" and len(each[1].kinds) > 2)
    other = edit.subject % len(before.kinds)
    kinds, colours = list(before.kinds), list(before.colours)
    kinds[other], colours[other] = kinds[edit.subject - 1], colours[edit.subject - 1]
    twins = replace(before, kinds=tuple(kinds), colours=tuple(colours))
    assert edit_instructions.instruction(edit, twins, after, np.random.default_rng(0)) is None
