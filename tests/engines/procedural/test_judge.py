"""The judge who knows the scenes: the true image scores 10, and each wrong one low on what is wrong with it."""

from dataclasses import replace

import numpy as np
import pytest

from macro.engines.material.types import EngineImage
from macro.engines.procedural.composition import compose, pooled_scene, rate
from macro.engines.procedural.generators import drawing
from macro.engines.procedural.judge import Judging
from macro.engines.procedural.material import RenderedMaterial
from macro.engines.procedural.noise import Noise
from macro.engines.procedural.stories import rewrite
from macro.engines.provider import JudgeRequest
from macro.scenes.animation import motion, narration
from macro.scenes.assets.palettes import COLOURS
from macro.utils.errors import ItemError

CASE = ("human", "object", "cloth", "object", "scene", "style")
POOL, JUDGE = RenderedMaterial(32, 1), Judging(Noise())


def judged(rubric, prompt, references, scenes, truth=None):
    images = drawing(list(scenes), [64] * len(scenes), 1)
    return JUDGE.judge([JudgeRequest(rubric, prompt, tuple(references), image, truth) for image in images])


def recoloured(scene, place, colour="lime"):
    subjects = list(scene.subjects)
    palette = subjects[place].palette
    subjects[place] = replace(subjects[place], palette=(COLOURS[colour], *palette[1:]))
    return replace(scene, subjects=tuple(subjects))


def without(scene, place):
    return replace(scene, subjects=scene.subjects[:place] + scene.subjects[place + 1 :])


def mirrored(scene):
    """Left and right change places."""
    subjects = tuple(replace(s, position=(-s.position[0], s.position[1])) for s in scene.subjects)
    eye, target = scene.camera.eye, scene.camera.target
    camera = replace(scene.camera, eye=(-eye[0], *eye[1:]), target=(-target[0], *target[1:]))
    return replace(scene, subjects=subjects, camera=camera)


@pytest.fixture(scope="module")
def composition():
    """(prompt, references, scene, place in the scene of each reference's subject)."""
    references = [POOL.pooled(category, 9, n) for n, category in enumerate(CASE)]
    prompt = "on grass, the <image 1> {} wearing the cloth of <image 3> stands left of the <image 2> {}, which is left "
    prompt += "of the <image 4> {}. the place is that of <image 5>. lit as in <image 6>."
    prompt = prompt.format(*(references[n].scene.subjects[0].kind for n in (0, 1, 3)))
    rated = rate([references], [CASE], [3])[0]
    scene = compose([rated.instruction], [references], [64], [0], rays=1)[0].scene
    kinds = [references[n].scene.subjects[0].kind for n in (0, 1, 3)]
    places = {n: [s.kind for s in scene.subjects].index(kind) for n, kind in zip((1, 2, 4), kinds, strict=True)}
    return rated.instruction, references, scene, places


def test_the_composition_is_right_in_everything(composition):
    prompt, references, scene, _ = composition
    scores = judged("customization", prompt, references, [scene])[0]
    assert set(scores) == {*(f"consistency_{n}" for n in range(1, 7)), "following"}
    assert min(scores.values()) > 9.9


def test_one_wrong_reference_is_seen_and_no_other(composition):
    prompt, references, scene, places = composition
    wrong = {
        2: recoloured(scene, places[2]),
        3: replace(scene, subjects=tuple(
            replace(s, texture="plain", palette=(COLOURS["lime"], COLOURS["lime"], s.palette[2]))
            if n == places[1] else s for n, s in enumerate(scene.subjects)
        )),
        5: replace(scene, surroundings=pooled_scene("scene", 5, 5).surroundings),
        6: replace(scene, light=replace(scene.light, azimuth=-scene.light.azimuth, strength=2.0)),
    }  # fmt: skip
    scored = judged("customization", prompt, references, wrong.values())
    for number, scores in zip(wrong, scored, strict=True):
        assert scores[f"consistency_{number}"] < 6
        assert all(scores[f"consistency_{n}"] > 9.9 for n in range(1, 7) if n != number)


def test_a_missing_subject_and_a_stranger_cost_following(composition):
    prompt, references, scene, places = composition
    stranger = replace(scene.subjects[places[2]], kind="castle", position=(0.0, 2.0))
    more = replace(scene, subjects=(*scene.subjects, stranger))
    gone, crowded, right = judged("customization", prompt, references, [without(scene, places[4]), more, scene])
    assert gone["consistency_4"] < 3 and gone["following"] < 6
    assert 6 < crowded["following"] < right["following"]


def test_following_reads_the_words(composition):
    """The same image under a prompt that says the contrary; and the mirrored one under a prompt of sides."""
    _, references, scene, places = composition
    kinds = {n: scene.subjects[place].kind for n, place in places.items()}
    sides = sorted(places, key=lambda n: scene.subjects[places[n]].position[0])
    left, right = sides[0], sides[-1]
    says = "the <image {}> {} is left of the <image {}> {}, and there is the <image {}> {}."
    middle = next(n for n in places if n not in (left, right))
    true = says.format(left, kinds[left], right, kinds[right], middle, kinds[middle])
    false = says.format(right, kinds[right], left, kinds[left], middle, kinds[middle])
    scored = [judged("customization", prompt, references[:4], [s])[0]["following"] for prompt, s in (
        (true, scene), (false, scene), (true, mirrored(scene)), (false, mirrored(scene)),
    )]  # fmt: skip
    assert scored[0] > 9.9 and scored[3] > 9.9 and scored[1] < 6 and scored[2] < 6


def test_grades_are_grades(composition):
    """The farther a colour drifts, the lower the score: not only right or wrong."""
    prompt, references, scene, places = composition
    main = np.array(scene.subjects[places[2]].palette[0])
    drifted = [
        replace(scene, subjects=tuple(
            replace(s, palette=(tuple(float(c) for c in main + share * (0.5 - main)), *s.palette[1:]))
            if n == places[2] else s for n, s in enumerate(scene.subjects)
        )) for share in (0.0, 0.1, 0.25, 0.5)
    ]  # fmt: skip
    scores = [s["consistency_2"] for s in judged("customization", prompt, references, drifted)]
    assert scores == sorted(scores, reverse=True) and len({round(s, 2) for s in scores}) == 4


@pytest.fixture(scope="module")
def page():
    """(prompt, references, scene, place of somebody known) of a late page of a story."""
    for index in range(9):
        tale = POOL.story(6, index)
        target, before = tale.pages[-1], [p.image for p in tale.pages[:-1]]
        answer = rewrite([[""] * len(before)], [before], [target.text], [target.image], [0])[0]
        if len(answer.kept) >= 3 and len(target.characters) >= 2:
            return answer.text, [before[n] for n in answer.kept], target.image.scene
    raise AssertionError("no late page with two characters")


def test_illustration_sees_who_has_changed_and_what_is_not_told(page):
    prompt, references, scene = page
    strange = pooled_scene("object", 1, 1)
    right, other, recolour, gone, flipped = judged(
        "illustration", prompt, references,
        [scene, strange, recoloured(scene, 0, "lime" if scene.subjects[0].palette[0] != COLOURS["lime"] else "pink"),
         without(scene, 0), mirrored(scene)],
    )  # fmt: skip
    assert right["text"] > 9.9 and right["image"] > 9.9
    assert other["text"] < 2 and other["image"] < 3
    assert recolour["image"] < right["image"] - 1
    assert gone["text"] < 7 and gone["image"] < right["image"] - 1.5
    assert flipped["image"] > 9.9


def test_spatial_measures_the_angle_and_the_things():
    whole = pooled_scene("object", 2, 2)
    subject, camera = whole.subjects[0], whole.camera

    def turned(degrees):
        return replace(whole, subjects=(replace(subject, yaw=subject.yaw + np.deg2rad(degrees)),))

    truth = drawing([whole], [64], 1)[0]
    angles = [judged("spatial", "draw", [truth], [turned(d)], truth)[0]["viewpoint"] for d in (0, 15, 30, 90, 180)]
    assert angles[0] > 9.9 and angles == sorted(angles, reverse=True) and angles[1] > 7 and angles[3] < 1
    other = replace(pooled_scene("object", 2, 4), camera=camera)
    same, wrong = judged("spatial", "draw", [truth], [turned(40), other], truth)
    assert same["content"] > 9.9 and wrong["content"] < 5
    missing = JUDGE.judge([JudgeRequest("spatial", "draw", (truth,), truth)])[0]
    assert isinstance(missing, ItemError) and "true target" in missing.reason


def test_temporal_wants_the_next_frame_and_no_other():
    true, wrong = [], []
    for seed in range(8):
        script = motion.write(np.random.default_rng([5, seed]), 9)
        scenes = [script.at((beat.start + beat.stop) / 2) for beat in script.beats]
        frames = [EngineImage(np.zeros((64, 64, 3), np.uint8), scene) for scene in scenes]
        prompt = f"a video: {narration.summarise_changes(scenes[:6], np.random.default_rng(seed))} draw the next."
        elsewhere = motion.write(np.random.default_rng([6, seed]), 4).at(0.5)
        scored = judged("temporal", prompt, frames[:5], [scenes[5], scenes[4], scenes[2], elsewhere])
        true.append(min(scored[0].values()))
        wrong += [min(scores.values()) for scores in scored[1:]]
        assert scored[0]["context"] > 9.9 and scored[3]["context"] < 5
    assert sum(score >= 6 for score in true) >= 7 and max(wrong) < 6


def test_faults_and_noise(composition):
    prompt, references, scene, _ = composition
    image = drawing([scene], [64], 1)[0]
    blank = EngineImage(image.pixels)
    asked = [JudgeRequest("customization", prompt, tuple(references), blank), JudgeRequest("taste", prompt, (), image)]
    unknown, strange = JUDGE.judge(asked)
    assert "not known" in unknown.reason and "'taste' is none of customization" in strange.reason
    question = JudgeRequest("customization", prompt, tuple(references), image)
    erring = Judging(Noise(scores=2.0))
    first, again = erring.judge([question])[0], erring.judge([question])[0]
    exact = JUDGE.judge([question])[0]
    assert first == again and first != exact and all(0 <= score <= 10 for score in first.values())
