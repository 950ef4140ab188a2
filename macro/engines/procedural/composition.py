"""Customization from scenes: a pool of references by MACRO's categories, their suitability, and the composition.

    human    a figure that faces the viewer (an animal, a robot, a snowman) on a plain backdrop
    cloth    a swatch of textile that fills the image: the wearer's main and second colour and pattern
    object   any other kind, on a plain backdrop
    scene    an empty place under an open sky: the surroundings
    style    plaster objects in a studio under one of four lights: the light

So each reference contributes a different part of the scene graph, and all of them can be combined: a
figure keeps its kind, decal and accent colour in any cloth. `compose` arranges the subjects in several ways
and draws the arrangement that the instruction describes. Read next: `reference_roles.py` (its text), `judge.py`.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from macro.engines.ground_truth import ground_truths, known_truth
from macro.engines.material.types import CATEGORIES, EngineImage
from macro.engines.procedural.generators import drawing
from macro.engines.procedural.judge import nouns_of, share_held
from macro.engines.procedural.reference_roles import Roles, read_roles, roles_for, with_roles, without_roles
from macro.engines.procedural.vision import UNKNOWN
from macro.engines.provider import Answers, Images, Suitability
from macro.scenes.assets import appearance
from macro.scenes.assets.catalog import FIGURES, OBJECTS
from macro.scenes.assets.palettes import colour_distance, colour_name
from macro.scenes.graph import TEXTURES, Camera, Light, Scene, Subject, Surroundings
from macro.scenes.language import captions
from macro.scenes.language.lexicon import TEXTURE_WORDS, a_or_an, ground_words, phrase_of, sky_words
from macro.scenes.language.prompt_parser import parse_prompt
from macro.scenes.layout import layout_sampler
from macro.scenes.layout.placement import view_of
from macro.scenes.render.batches import render_with_truth
from macro.scenes.render.scene_compiler import MAX_SUBJECTS
from macro.scenes.similarity import colour_similarity, dressed
from macro.sentence.prompt import marker
from macro.sentence.spans import Truth
from macro.utils.errors import ItemError

# Name -> lowest and highest (elevation, warmth, strength); all light comes from one side.
LIGHTS = {
    "golden evening light": ((0.32, 0.9, 0.95), (0.42, 1.0, 1.05)),
    "white noon light": ((1.3, 0.0, 1.1), (1.4, 0.05, 1.2)),
    "dim light": ((0.6, 0.1, 0.35), (0.8, 0.3, 0.45)),
    "hard cold light from the side": ((0.3, 0.0, 1.1), (0.4, 0.05, 1.2)),
}
_PLASTER = ((0.8, 0.8, 0.8),) * 3  # bright, yet never overexposed
_STUDY = ("crate", "bottle", "snowman", "teapot", "mushroom", "castle")

ARRANGEMENTS = 4  # arrangements that a composer tries
POSES = 4  # light and poses are drawn at most this many times
_LOOK = 64  # pixels a side of the images in which it checks arrangements


# ---- the pool ----


def pooled_scene(category: str, seed: int, index: int) -> Scene:
    """The scene of reference (category, seed, index).

    Raises:
        ValueError: no category of MACRO's.
    """
    if category not in CATEGORIES:
        raise ValueError(f"category {category!r} is none of {', '.join(CATEGORIES)}")
    rng = np.random.default_rng([seed, index, CATEGORIES.index(category)])
    if category == "cloth":
        return _swatch(rng)
    if category == "scene":
        camera = view_of(rng, int(rng.integers(1, 4)))
        return Scene((), camera, appearance.light(rng), appearance.surroundings(rng), int(rng.integers(2**31)))
    if category == "style":
        return _study(rng)
    kind = str(rng.choice(FIGURES if category == "human" else OBJECTS))
    palette = appearance.palettes(rng, 1, appearance.backdrop(rng))[0]
    somebody = _somebody(rng, kind, palette, appearance.texture(rng), appearance.decal(rng))
    camera, light, backdrop = view_of(rng, 1), appearance.light(rng), appearance.backdrop(rng)
    whole = Scene((somebody,), camera, light, backdrop, int(rng.integers(2**31)))
    return layout_sampler.reference_scene(whole, 0, rng)


def _somebody(rng: np.random.Generator, kind: str, palette, texture: str, decal: str | None) -> Subject:
    pose, yaw = float(rng.random()), layout_sampler.yaw_of(rng)
    return Subject(kind, palette, texture, decal, 1.0, (0.0, 0.0), 0.0, yaw, pose, 1, appearance.seed(rng))


def _swatch(rng: np.random.Generator) -> Scene:
    """Textile seen from above: the ground with nothing on it."""
    main, second, _ = appearance.palettes(rng, 1, appearance.backdrop(rng))[0]
    texture = str(rng.choice([name for name in TEXTURES if name != "plain"]))
    camera = Camera("perspective", (0.0, 5.0, -1.2), (0.0, 0.0, 0.0), float(rng.uniform(0.5, 0.7)))
    cloth = Surroundings(main, second, texture, main, main, "studio")
    return Scene((), camera, appearance.light(rng), cloth, int(rng.integers(2**31)))


def _study(rng: np.random.Generator) -> Scene:
    """Plaster objects under one of `LIGHTS`."""
    kinds = [str(kind) for kind in rng.choice(_STUDY, 3, replace=False)]
    things = [_somebody(rng, kind, _PLASTER, "plain", None) for kind in kinds]
    low, high = LIGHTS[str(rng.choice(list(LIGHTS)))]
    elevation, warmth, strength = (float(x) for x in rng.uniform(low, high))
    azimuth = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.9, 1.4))
    numbered = [replace(thing, number=n) for n, thing in enumerate(things, 1)]
    scene = layout_sampler.arrange(rng, numbered, appearance.backdrop(rng), {})
    return replace(scene, light=Light(azimuth, elevation, warmth, strength))


def light_name(light: Light) -> str:
    """The nearest of `LIGHTS`."""
    own = np.array([light.elevation, light.warmth, light.strength])
    return min(LIGHTS, key=lambda name: float(np.abs(np.mean(LIGHTS[name], 0) - own).sum()))


# ---- subjects and arrangements ----

Told = tuple[Scene, tuple[int, ...]]  # an arrangement, and the number of the image of each of its subjects


def _cast(references: Images, roles: Roles) -> dict[int, Subject]:
    """The subjects of the composition, dressed, by the numbers of their images."""
    out = {}
    for number in roles.somebody(len(references)):
        for subject in references[number - 1].scene.subjects[:1]:
            cloth = roles.worn.get(number)
            out[number] = dressed(subject, references[cloth - 1].scene.surroundings) if cloth else subject
    return out


def _arrangement(references: Images, roles: Roles, way: int) -> Told:
    """One arrangement of all subjects, and the numbers of the images that show them.

    It depends on the references alone, so that `rate` and `compose` choose among the same few.
    """
    key = zlib.crc32("|".join(repr(image.scene) for image in references).encode())
    rng = np.random.default_rng([key, way])
    cast = _cast(references, roles)
    mains = [subject.palette[0] for subject in cast.values()]
    if roles.place:
        around = references[roles.place - 1].scene.surroundings
    else:
        around = max((appearance.surroundings(rng) for _ in range(6)), key=lambda place: _contrast(mains, place))
    subjects = [
        replace(
            subject, number=n, yaw=layout_sampler.yaw_of(rng), pose=float(rng.random()), position=(0.0, 0.0), height=0.0
        )
        for n, subject in enumerate(cast.values(), 1)
    ]
    scene = layout_sampler.arrange(rng, subjects, around, layout_sampler.riders_of(rng, [s.kind for s in subjects]))
    at = dict(zip([(s.position, s.height) for s in scene.subjects], cast, strict=True))
    scene = captions.in_order_of_mention(scene, rng)
    return scene, tuple(at[s.position, s.height] for s in scene.subjects)


def _contrast(mains: Sequence, around: Surroundings) -> float:
    """Distance of the ground's colour from the nearest main colour."""
    return min((colour_distance(main, around.ground) for main in mains), default=0.0)


def _problem(references: Images, roles: Roles) -> ItemError | None:
    if any(image.scene is None for image in references):
        return UNKNOWN
    named = [*roles.worn, *roles.worn.values(), roles.place or 1, roles.light or 1]
    if max(named) > len(references):
        return ItemError(f"the instruction names <image {max(named)}>, but there are {len(references)} images")
    count = len(_cast(references, roles))
    if not 1 <= count <= MAX_SUBJECTS:
        return ItemError(f"{count} of the images show a human or an object; 1 to {MAX_SUBJECTS} can be composed")
    return None


# ---- the stages ----


def rate(
    references: Sequence[Images], categories: Sequence[Sequence[str]], seeds: Sequence[int]
) -> Answers[Suitability]:
    """10 minus penalties for subjects that are hard to tell apart; the instruction describes one arrangement."""
    out: Answers[Suitability] = []
    for images, names, seed in zip(references, categories, seeds, strict=True):
        rng = np.random.default_rng([seed, 6])
        roles = roles_for(tuple(names), rng)
        out.append(_problem(images, roles) or _suitability(images, names, roles, rng))
    return out


def compose(
    prompts: Sequence[str], references: Sequence[Images], sizes: Sequence[int], seeds: Sequence[int], rays: int
) -> Answers[EngineImage]:
    """Draws the arrangement that the prompt describes, in light and poses that follow from the seed."""
    asked = [read_roles(prompt) for prompt in prompts]
    out: list = [_problem(images, roles) for images, roles in zip(references, asked, strict=True)]
    places = [i for i, problem in enumerate(out) if problem is None]
    share = dict.fromkeys(places, -1.0)
    # Another pose, or a larger image, can break a described relation: then all poses are drawn again.
    for turn in range(POSES):
        wanting = [i for i in places if share[i] < 1]
        told = _told([(prompts[i], references[i], asked[i], seeds[i]) for i in wanting], turn)
        images = drawing([scene for scene, _ in told], [sizes[i] for i in wanting], rays)
        for i, (scene, shown), image, truth in zip(wanting, told, images, ground_truths(images), strict=True):
            held = _share_told(prompts[i], scene, shown, truth)
            if held > share[i]:
                out[i], share[i] = image, held
    return out


def _told(asked: Sequence[tuple[str, Images, Roles, int]], turn: int) -> list[Told]:
    """For each (prompt, references, roles, seed) the first of the arrangements that satisfy most of the prompt."""
    ways = [
        (i, *_in_light(references, roles, way, seed, turn))
        for i, (_, references, roles, seed) in enumerate(asked)
        for way in range(ARRANGEMENTS)
    ]
    best: dict[int, tuple[float, Told]] = {}
    imagined = render_with_truth([scene for _, scene, _ in ways], _LOOK, _LOOK, rays=1)
    for (i, scene, shown), (_, truth) in zip(ways, imagined, strict=True):
        share = _share_told(asked[i][0], scene, shown, truth)
        if i not in best or share > best[i][0]:
            best[i] = share, (scene, shown)
    return [_in_order_of_mention(asked[i][0], *best[i][1]) for i in range(len(asked))]


def _in_order_of_mention(prompt: str, scene: Scene, shown: Sequence[int]) -> Told:
    """The arrangement with its subjects numbered in the order in which the prompt mentions them."""
    order = sorted(range(len(shown)), key=lambda n: prompt.find(marker(shown[n])))
    return captions.reordered(scene, order), tuple(shown[n] for n in order)


def _share_told(prompt: str, scene: Scene, shown: Sequence[int], truth: Truth) -> float:
    """Share of a prompt's claims that hold in a scene whose subjects are shown by these images, 0..1."""
    kinds = {number: subject.kind for number, subject in zip(shown, scene.subjects, strict=True)}
    claims = parse_prompt(without_roles(prompt), nouns_of(kinds))
    return share_held(claims, {number: n for n, number in enumerate(shown)}, scene, truth)


def _in_light(references: Images, roles: Roles, way: int, seed: int, turn: int) -> Told:
    scene, shown = _arrangement(references, roles, way)
    scene = layout_sampler.jitter(scene, np.random.default_rng([seed, 7, turn]))
    return replace(scene, light=references[roles.light - 1].scene.light) if roles.light else scene, shown


def _suitability(references: Images, categories: Sequence[str], roles: Roles, rng: np.random.Generator) -> Suitability:
    scene, shown = _arrangement(references, roles, int(rng.integers(ARRANGEMENTS)))
    # Described relations must hold at both sizes: gaps of a pixel open and close with the image's size.
    (_, truth), (_, closer) = (next(render_with_truth([scene], side, side, rays=1)) for side in (_LOOK, 2 * _LOOK))
    truth = replace(truth, relations=tuple(r for r in truth.relations if r in closer.relations))
    kinds = {number: subject.kind for number, subject in zip(shown, scene.subjects, strict=True)}
    instruction = captions.instruction(scene, truth, rng, [(number,) for number in shown])
    instruction = with_roles(instruction, roles, kinds, rng)
    described = tuple(described_as(name, image) for name, image in zip(categories, references, strict=True))
    return Suitability(_score(scene), described, instruction)


def _score(scene: Scene) -> float:
    """10, minus 3 per pair that is hard to tell apart, 1 per pair of a kind, 2 per subject of the ground's colour."""
    score = 10.0
    for i, one in enumerate(scene.subjects):
        for other in scene.subjects[:i]:
            if one.kind == other.kind:
                score -= 3.0 if colour_similarity(one.palette[0], other.palette[0]) > 0.4 else 1.0
        if colour_distance(one.palette[0], scene.surroundings.ground) < appearance.APART_FROM_GROUND:
            score -= 2.0
    return max(score, 0.0)


def described_as(category: str, image: EngineImage) -> str:
    """A short description of a reference."""
    scene = image.scene
    if category == "cloth":
        around = scene.surroundings
        words_ = f"{TEXTURE_WORDS[around.ground_texture]} {colour_name(around.ground)} cloth"
        return a_or_an(f"{words_} with {colour_name(around.ground_second)}")
    if category == "scene":
        sky = sky_words(scene)
        return f"{ground_words(scene.surroundings)} under {sky}" if sky else ground_words(scene.surroundings)
    if category == "style":
        return light_name(scene.light)
    return a_or_an(phrase_of(known_truth(image), 0, full=True))
