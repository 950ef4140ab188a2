"""A judge that knows the scenes of all images: MacroBench's rubrics, 0..10, scored from ground truth.

    customization   consistency_n   does the image contain the subject, cloth, place or light of reference n?
                    following       do the claims of the prompt hold: subjects, relations, ground, numbers?
    illustration    image           do the characters of the earlier images look the same in this one?
                    text            do the claims of the page's text hold?
    spatial         viewpoint       angle between the viewpoint and that of the true target
                    content         are the same things there, in the same surroundings?
    temporal        context         are the things and surroundings those of the frames before?
                    sequence        has what the prompt says last happened since the last frame, and not much more?

It reads prompts (`scenes/language/prompt_parser.py`) and scenes, and not how an image was made.
`Noise.scores` adds errors. Read next: `composition.py`, `stories.py`; `macro/judges/rubrics.py` (a real judge).
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from macro.engines.ground_truth import ground_truths
from macro.engines.procedural.noise import Noise, chance
from macro.engines.procedural.reference_roles import read_roles, without_roles
from macro.engines.procedural.vision import UNKNOWN
from macro.engines.provider import Answers, Images, JudgeRequest
from macro.scenes.animation.narration import changes, follows
from macro.scenes.assets.catalog import KINDS
from macro.scenes.assets.palettes import COLOURS
from macro.scenes.graph import Scene, Subject
from macro.scenes.language.lexicon import ground_words
from macro.scenes.language.prompt_parser import Claims, parse_prompt
from macro.scenes.similarity import dressed, light_similarity, matched, subject_similarity, surroundings_similarity
from macro.sentence.spans import Truth
from macro.utils.errors import ItemError

_SHOWN = 0.003  # of the image: a smaller subject is hardly visible
_USUAL = 2  # usual number of changes between two frames: one subject stops, another starts ...
_AHEAD = 0.7  # ... and factor on the score for each change beyond those between the frames before
_VIEW = np.deg2rad(60)  # a viewpoint that is off by this much scores 0

# Placeholders as `stories.py` writes them after a noun: "the dog of <image 1> and <image 3>".
_PLACEHOLDERS = re.compile(r" of <image \d+>(?:(?:,| and) <image \d+>)*")
_NAMED = re.compile(rf"\b({'|'.join(KINDS)})({_PLACEHOLDERS.pattern})")
KIND_NUMBERS = {kind: n for n, kind in enumerate(KINDS, 1)}


class Judging:
    """The stage `judge`."""

    def __init__(self, noise: Noise):
        self._noise = noise

    def judge(self, requests: Sequence[JudgeRequest]) -> Answers[dict[str, float]]:
        known = [i for i, request in enumerate(requests) if _all_known(request)]
        out: Answers[dict[str, float]] = [UNKNOWN] * len(requests)
        for i, truth in zip(known, ground_truths([requests[i].image for i in known]), strict=True):
            out[i] = self._scored(requests[i], truth)
        return out

    def _scored(self, request: JudgeRequest, truth: Truth) -> dict[str, float] | ItemError:
        if request.rubric not in _RUBRICS:
            return ItemError(f"rubric {request.rubric!r} is none of {', '.join(_RUBRICS)}")
        scores = _RUBRICS[request.rubric](request, truth)
        if isinstance(scores, ItemError):
            return scores
        rng = chance(request.image.scene, "judge", request.rubric, request.prompt)
        return {
            name: float(np.clip(10 * share + self._noise.scores * rng.normal(), 0, 10))
            for name, share in scores.items()
        }


def _all_known(request: JudgeRequest) -> bool:
    images = (*request.references, request.image, *([request.truth] if request.truth else []))
    return all(image.scene is not None for image in images)


# ---- claims of a prompt ----


def nouns_of(kinds: Mapping[int, str]) -> dict[str, int]:
    """Names by which an instruction may call the subjects of these images -> number of the image."""
    names = list(kinds.values())
    nouns = {f"<image {n}>": n for n in kinds} | {f"<image {n}> {kind}": n for n, kind in kinds.items()}
    return nouns | {kind: n for n, kind in kinds.items() if names.count(kind) == 1}


def share_held(claims: Claims, who: Mapping[int, int | None], scene: Scene, truth: Truth) -> float:
    """Share of the claims that hold, 0..1: for presence, ground and number of subjects, times that for relations.

    Args:
        who: number in the claims -> index in `scene.subjects`, from 0; None or missing for absent subjects.
    """
    seen = {number: place for number, place in who.items() if place is not None and truth.masks[place].mean() > _SHOWN}
    present = [number in seen for number in claims.mentioned]
    there = len(present) or 1
    # A subject that was not requested is as wrong as one that is missing.
    uncalled = max(len(scene.subjects) - sum(present), 0)
    points, total = sum(present), there + uncalled
    if claims.ground is not None:
        points, total = points + (claims.ground == ground_words(scene.surroundings)), total + 1
    related = [_holds(relation, seen, truth) for relation in claims.relations]
    return points / total * (0.3 + 0.7 * (sum(related) / len(related) if related else 1.0))


def _holds(relation, seen: Mapping[int, int], truth: Truth) -> bool:
    i, name, j = relation
    whose = j if isinstance(j, tuple) else (j,)
    if any(number not in seen for number in (i, *whose)):
        return False
    places = tuple(sorted(seen[number] + 1 for number in whose))
    return (seen[i] + 1, name, places if isinstance(j, tuple) else places[0]) in truth.relations


# ---- rubrics: shares, 0..1 ----

Shares = dict[str, float] | ItemError


def customization(request: JudgeRequest, truth: Truth) -> Shares:
    references, scene, roles = request.references, request.image.scene, read_roles(request.prompt)
    shown = [n for n in roles.somebody(len(references)) if references[n - 1].scene.subjects]
    meant = [references[n - 1].scene.subjects[0] for n in shown]
    wears = [n in roles.worn for n in shown]
    places = dict(zip(shown, matched(meant, scene.subjects, wears), strict=True))
    shares = dict.fromkeys((f"consistency_{n}" for n in range(1, len(references) + 1)), 0.0)
    for number, subject, worn in zip(shown, meant, wears, strict=True):
        place = places[number]
        if place is None:
            continue
        alike = subject_similarity(subject, scene.subjects[place], worn)
        shares[f"consistency_{number}"] = alike * _visible(truth, place)
        if worn:
            cloth = roles.worn[number]
            shares[f"consistency_{cloth}"] = _wears(scene.subjects[place], references, cloth) * _visible(truth, place)
    if roles.place and roles.place <= len(references):
        around = references[roles.place - 1].scene.surroundings
        shares[f"consistency_{roles.place}"] = surroundings_similarity(around, scene.surroundings)
    if roles.light and roles.light <= len(references):
        shares[f"consistency_{roles.light}"] = light_similarity(references[roles.light - 1].scene.light, scene.light)
    kinds = {number: subject.kind for number, subject in zip(shown, meant, strict=True)}
    claims = parse_prompt(without_roles(request.prompt), nouns_of(kinds))
    who = {n: place for n, place in places.items() if place is not None and scene.subjects[place].kind == kinds[n]}
    return shares | {"following": share_held(claims, who, scene, truth)}


def _wears(subject: Subject, references: Images, cloth: int) -> float:
    """Similarity of a subject's clothes to the swatch of that image."""
    if cloth > len(references):
        return 0.0
    return subject_similarity(dressed(subject, references[cloth - 1].scene.surroundings), subject)


def _visible(truth: Truth, place: int) -> float:
    """1 for a clearly visible subject, less if it is small or occluded."""
    area, uncovered = float(truth.masks[place].mean()), float(truth.visibility[place])
    return min(1.0, area / _SHOWN) * min(1.0, uncovered / 0.3)


def illustration(request: JudgeRequest, truth: Truth) -> Shares:
    scene = request.image.scene
    claims = parse_prompt(_PLACEHOLDERS.sub("", request.prompt), KIND_NUMBERS)
    who = {KIND_NUMBERS[subject.kind]: n for n, subject in enumerate(scene.subjects)}
    text = share_held(claims, who, scene, truth) * _colours_held(request.prompt, truth)
    likest = [
        max((subject_similarity(old, new) for old in image.scene.subjects for new in scene.subjects), default=0.0)
        for image in request.references
    ]
    # Subjects named with earlier images must look as they do there.
    old = [
        one
        for kind, numbers in _NAMED.findall(request.prompt)
        for n in map(int, re.findall(r"\d+", numbers))
        for one in (request.references[n - 1].scene.subjects if 1 <= n <= len(request.references) else ())
        if one.kind == kind
    ]
    back = [max((subject_similarity(one, new) for new in scene.subjects), default=0.0) for one in old]
    return {"text": text, "image": float(np.mean(likest + back)) if likest else 0.0}


def _colours_held(text: str, truth: Truth) -> float:
    """Share of colours in the text ("a red dog") that are true of a subject; 1 if none is mentioned."""
    coloured = {f"{colours[-1]} {kind}" for colours, kind in zip(truth.colours, truth.kinds, strict=True) if colours}
    said = [name for name in _coloured_names() if f" {name}" in text]
    return sum(name in coloured for name in said) / len(said) if said else 1.0


def _coloured_names() -> tuple[str, ...]:
    return tuple(f"{colour} {kind}" for colour in COLOURS for kind in KINDS)


def spatial(request: JudgeRequest, truth: Truth) -> Shares:
    del truth
    if request.truth is None:
        return ItemError("the spatial rubric compares with the true target, which is not given")
    seen, true = request.image.scene, request.truth.scene
    apart = np.arccos(np.clip(_seen_from(seen) @ _seen_from(true), -1, 1))
    return {"viewpoint": max(0.0, 1 - float(apart) / _VIEW), "content": _content(true, seen)}


def _seen_from(scene: Scene) -> np.ndarray:
    """Unit vector from the camera's target to the camera, in the frame of the first subject, if there is one."""
    camera = scene.camera
    away = np.subtract(camera.eye, camera.target)
    turn = scene.subjects[0].yaw if scene.subjects else 0.0
    sine, cosine = np.sin(turn), np.cos(turn)
    own = np.array([cosine * away[0] - sine * away[2], away[1], sine * away[0] + cosine * away[2]])
    return own / np.linalg.norm(own)


def _content(wanted: Scene, there: Scene) -> float:
    """Similarity of the subjects and surroundings of two scenes, 0..1; extra subjects lower it."""
    around = surroundings_similarity(wanted.surroundings, there.surroundings)
    if not wanted.subjects:
        return around
    places = matched(wanted.subjects, there.subjects)
    alike = [
        0.0 if place is None else subject_similarity(one, there.subjects[place])
        for one, place in zip(wanted.subjects, places, strict=True)
    ]
    uncalled = max(len(there.subjects) - len(wanted.subjects), 0)
    return 0.8 * sum(alike) / (len(alike) + uncalled) + 0.2 * around


def temporal(request: JudgeRequest, truth: Truth) -> Shares:
    del truth
    now, before = request.image.scene, [image.scene for image in request.references]
    if not before:
        return ItemError("the temporal rubric looks at the frames before, and there are none")
    context = float(np.mean([_content(scene, now) for scene in before]))
    # An image without change from one of the frames before repeats it; one with far more changes skips a frame.
    again = 0.3 if any(not changes(scene, now) for scene in before) else 1.0
    steps = [len(changes(one, other)) for one, other in zip(before[:-1], before[1:], strict=True)]
    ahead = max(len(changes(before[-1], now)) - max(steps, default=_USUAL), 0)
    return {"context": context, "sequence": context * follows(before, now, request.prompt) * again * _AHEAD**ahead}


_RUBRICS: dict[str, Callable[[JudgeRequest, Truth], Shares]] = {
    "customization": customization, "illustration": illustration, "spatial": spatial, "temporal": temporal,
}  # fmt: skip
