"""The pool by MACRO's categories, and compositions: they hold everybody, in the clothes, place and light asked for."""

from dataclasses import replace

import numpy as np
import pytest

from macro.engines.ground_truth import ground_truths
from macro.engines.material.types import EngineImage
from macro.engines.procedural import composition
from macro.engines.procedural.judge import nouns_of, share_held
from macro.engines.procedural.material import RenderedMaterial
from macro.engines.procedural.reference_roles import read_roles, without_roles
from macro.scenes.assets.catalog import FIGURES, OBJECTS
from macro.scenes.language.prompt_parser import parse_prompt
from macro.scenes.similarity import dressed, subject_similarity
from macro.utils.errors import ItemError

POOL = RenderedMaterial(32, 1)
CASES = (
    ("human",), ("object", "scene"), ("human", "cloth", "object"), ("human", "human", "cloth", "cloth", "style"),
    ("object", "human", "human", "scene", "style", "cloth", "object", "object"),
)  # fmt: skip


@pytest.fixture(scope="module")
def composed():
    """(references, suitability, image) of each case."""
    references = [[POOL.pooled(c, 4, 10 * n + i) for i, c in enumerate(case)] for n, case in enumerate(CASES)]
    rated = composition.rate(references, CASES, range(len(CASES)))
    images = composition.compose(
        [r.instruction for r in rated], references, [64] * len(CASES), range(len(CASES)), rays=1
    )
    return list(zip(references, rated, images, strict=True))


def test_a_reference_follows_from_category_seed_and_index():
    for category in composition.CATEGORIES:
        assert composition.pooled_scene(category, 1, 2) == composition.pooled_scene(category, 1, 2)
        assert len({repr(composition.pooled_scene(category, s, i)) for s in (1, 2) for i in range(4)}) == 8
    image = POOL.pooled("human", 1, 2)
    assert image.pixels.shape == (32, 32, 3) and image.scene == composition.pooled_scene("human", 1, 2)


def test_categories_show_what_they_should():
    for i in range(30):
        human, thing = composition.pooled_scene("human", 0, i), composition.pooled_scene("object", 0, i)
        assert [s.kind in FIGURES for s in human.subjects] == [True] and thing.subjects[0].kind in OBJECTS
        cloth, place = composition.pooled_scene("cloth", 0, i), composition.pooled_scene("scene", 0, i)
        assert not cloth.subjects and cloth.surroundings.ground_texture != "plain"
        assert not place.subjects and place.surroundings.style in ("open", "hills")
    lights = {composition.light_name(composition.pooled_scene("style", 0, i).light) for i in range(30)}
    assert lights == set(composition.LIGHTS)


def test_an_unknown_category_is_refused():
    with pytest.raises(ValueError, match="category 'pet' is none of human"):
        composition.pooled_scene("pet", 0, 0)


def test_compositions_hold_what_their_references_show(composed):
    for case, (references, rated, image) in zip(CASES, composed, strict=True):
        roles, scene = read_roles(rated.instruction), image.scene
        for n, (category, reference) in enumerate(zip(case, references, strict=True), 1):
            if category in ("human", "object"):
                wanted = reference.scene.subjects[0]
                if n in roles.worn:
                    wanted = dressed(wanted, references[roles.worn[n] - 1].scene.surroundings)
                assert max(subject_similarity(wanted, one) for one in scene.subjects) > 0.999
            if category == "scene":
                assert scene.surroundings == reference.scene.surroundings
            if category == "style":
                assert scene.light == reference.scene.light
        assert len(scene.subjects) == sum(category in ("human", "object") for category in case)
        assert ground_truths([image])[0].masks.any((1, 2)).all()


def test_instructions_name_every_image_and_tell_the_composition(composed):
    for case, (references, rated, _) in zip(CASES, composed, strict=True):
        assert all(f"<image {n}>" in rated.instruction for n in range(1, len(case) + 1))
        assert len(rated.descriptions) == len(case) and 0 <= rated.score <= 10
        shown = read_roles(rated.instruction).somebody(len(case))
        kinds = {n: references[n - 1].scene.subjects[0].kind for n in shown}
        assert sorted(parse_prompt(without_roles(rated.instruction), nouns_of(kinds)).mentioned) == shown


def test_the_composer_listens_to_the_instruction(composed):
    """Told the arrangements one by one, it draws the one that it was told."""
    references = composed[4][0]
    scenes = [composition._arrangement(references, read_roles(composed[4][1].instruction), way)[0] for way in range(4)]
    rated = [composition.rate([references], [CASES[4]], [seed])[0].instruction for seed in range(12)]
    assert len(set(rated)) == 12
    drawn = composition.compose(rated, [references] * 12, [64] * 12, [0] * 12, rays=1)
    places = {tuple(sorted((s.kind, s.position) for s in image.scene.subjects)) for image in drawn}
    assert len(places) >= 3
    assert places <= {tuple(sorted((s.kind, s.position) for s in scene.subjects)) for scene in scenes}


def test_light_and_pose_follow_the_seed(composed):
    references, rated, _ = composed[2]
    first, again, other = composition.compose([rated.instruction] * 3, [references] * 3, [32] * 3, [1, 1, 2], rays=1)
    assert np.array_equal(first.pixels, again.pixels) and not np.array_equal(first.pixels, other.pixels)


def test_doubles_and_camouflage_cost(composed):
    references = composed[1][0]
    twice = [references[0], references[0], references[1]]
    asked = ("object", "object", "scene")
    alone, doubled = composition.rate([references, twice], [CASES[1], asked], [0, 0])
    assert doubled.score <= alone.score - 3
    around = references[1].scene.surroundings
    subject = references[0].scene.subjects[0]
    hidden = replace(subject, palette=(around.ground, *subject.palette[1:]))
    hidden = replace(references[0], scene=replace(references[0].scene, subjects=(hidden,)))
    assert composition.rate([[hidden, references[1]]], [CASES[1]], [0])[0].score == 8.0


def test_what_cannot_be_composed_is_a_fault(composed):
    unknown, place = EngineImage(np.zeros((8, 8, 3), np.uint8)), POOL.pooled("scene", 0, 0)
    rated = composition.rate([[unknown], [place]], [("human",), ("scene",)], [0, 0])
    assert all(isinstance(answer, ItemError) for answer in rated)
    assert "scene is not known" in rated[0].reason and "0 of the images show a human" in rated[1].reason
    drawn = composition.compose(["<image 1> wearing the cloth of <image 7>."], [composed[0][0]], [32], [0], rays=1)
    assert "names <image 7>" in drawn[0].reason


def test_what_an_instruction_tells_holds_from_near_too():
    """Gaps of a pixel open and close with the image's size, what is told does not; numbers follow the words."""
    cases = [("human", "human", "object", "object", "object")] * 12
    references = [[POOL.pooled(c, 6, 10 * n + i) for i, c in enumerate(case)] for n, case in enumerate(cases)]
    told = [answer.instruction for answer in composition.rate(references, cases, range(len(cases)))]
    images = composition.compose(told, references, [128] * len(cases), range(len(cases)), rays=1)
    for prompt, shown, image, truth in zip(told, references, images, ground_truths(images), strict=True):
        kinds = {n: reference.scene.subjects[0].kind for n, reference in enumerate(shown, 1)}
        claims = parse_prompt(prompt, nouns_of(kinds))
        assert [kinds[n] for n in claims.mentioned] == list(truth.kinds)
        assert share_held(claims, {n: at for at, n in enumerate(claims.mentioned)}, image.scene, truth) == 1
