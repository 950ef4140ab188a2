"""Scenes sampled and rendered: scene prompts, images, novel views of subjects, images with subjects removed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from macro.engines.ground_truth import ground_truths, labels, render_known, scene_subset, subject_at
from macro.engines.material.types import EngineImage
from macro.engines.procedural.noise import Noise
from macro.engines.procedural.vision import answer_known, regions_of
from macro.engines.provider import Answers, Images, Region, Regions, ScenePrompt, SceneRequest
from macro.scenes.assets.catalog import KINDS
from macro.scenes.assets.palettes import COLOURS
from macro.scenes.graph import Scene
from macro.scenes.language import captions
from macro.scenes.language.lexicon import a_or_an, ground_words
from macro.scenes.layout import layout_sampler
from macro.scenes.render.batches import render_images, render_with_truth
from macro.utils.errors import ItemError

UNKNOWN = ItemError("shows no subject of a scene that is known")
_LOOK = 128  # pixels: where subjects' colours are looked up before the image is drawn


def write_scene(asks: Sequence[SceneRequest], seeds: Sequence[int]) -> Answers[ScenePrompt]:
    """Samples a scene from those categories that are kinds of ours; the caption names its subjects and ground."""
    scenes = [_imagined(ask, np.random.default_rng([seed, 0])) for ask, seed in zip(asks, seeds, strict=True)]
    # Two of a kind are told apart by the colours that one sees, which only an image knows.
    twins = [s for s in scenes if isinstance(s, Scene) and len({one.kind for one in s.subjects}) < len(s.subjects)]
    seen = iter(render_with_truth(twins, _LOOK, _LOOK, rays=1))
    names = {id(scene): labels(truth) for scene, (_, truth) in zip(twins, seen, strict=True)}
    return [scene if isinstance(scene, ItemError) else _idea(scene, names.get(id(scene))) for scene in scenes]


def _imagined(ask: SceneRequest, rng: np.random.Generator) -> Scene | ItemError:
    kinds = tuple(category for category in ask.categories if category in KINDS)
    if not kinds:
        return ItemError(f"none of the categories {', '.join(ask.categories)} is a kind of subject")
    return captions.in_order_of_mention(layout_sampler.sample_scene(rng, ask.count, kinds), rng)


def _idea(scene: Scene, named: tuple[str, ...] | None) -> ScenePrompt:
    named = named or tuple(subject.kind for subject in scene.subjects)
    return ScenePrompt(f"{', '.join(map(a_or_an, named))} on {ground_words(scene.surroundings)}", named, scene)


def drawing(scenes: Sequence[Scene], sizes: Sequence[int], rays: int, truths: bool = False) -> list[EngineImage]:
    """Renders scenes as square images of these sides, each size in one batch.

    Args:
        truths: whether their ground truths are wanted later: they come from the same pass.
    """
    images: list[EngineImage | None] = [None] * len(scenes)
    for size in dict.fromkeys(sizes):
        places = [i for i, side in enumerate(sizes) if side == size]
        of_size = [scenes[i] for i in places]
        drawn = render_known(of_size, size, rays) if truths else render_images(of_size, size, rays)
        for i, pixels in zip(places, drawn, strict=True):
            images[i] = EngineImage(pixels, scenes[i])
    return images


class Drawing:
    """The stages that render: `draw`, `novel_view`, `remove_subjects`."""

    def __init__(self, rays: int, noise: Noise):
        self._rays, self._noise = rays, noise

    def draw(self, ideas: Sequence[ScenePrompt], sizes: Sequence[int], seeds: Sequence[int]) -> Answers[EngineImage]:
        """Renders the prompts' scenes; seeds change nothing, since a prompt has one image."""
        del seeds
        known = [i for i, idea in enumerate(ideas) if idea.scene is not None]
        drawn = drawing([ideas[i].scene for i in known], [sizes[i] for i in known], self._rays, truths=True)
        return _filled(len(ideas), known, drawn)

    def novel_view(
        self, images: Images, regions: Regions, sizes: Sequence[int], seeds: Sequence[int]
    ) -> Answers[EngineImage]:
        """The subject alone on a plain backdrop, in another view, pose and light."""
        subjects = _subjects(images, regions)
        known = [i for i, subject in enumerate(subjects) if subject is not None]
        alone = [self._reference(images[i].scene, subjects[i], seeds[i]) for i in known]
        return _filled(len(images), known, drawing(alone, [sizes[i] for i in known], self._rays))

    def _reference(self, scene: Scene, subject: int, seed: int) -> Scene:
        rng = np.random.default_rng([seed, 1])
        alone = layout_sampler.reference_scene(scene, subject, rng)
        if rng.random() >= self._noise.drift:
            return alone
        shown = alone.subjects[0]
        main = COLOURS[str(rng.choice([name for name, rgb in COLOURS.items() if rgb != shown.palette[0]]))]
        return replace(alone, subjects=(replace(shown, palette=(main, *shown.palette[1:])),))

    def remove_subjects(
        self, images: Images, regions: Sequence[Regions]
    ) -> Answers[tuple[EngineImage, list[Region]] | None]:
        """Keeps only the regions' subjects, in their order, and everything else as it was."""
        narrow, sizes, known, names = [], [], [], []
        for i, (image, kept) in enumerate(zip(images, regions, strict=True)):
            found = _subjects([image] * len(kept), kept)
            if None not in found and len(set(found)) == len(found):
                known.append(i)
                narrow.append(scene_subset(image.scene, found))
                sizes.append(image.pixels.shape[0])
                called = labels(ground_truths([image])[0])
                # A wrong label stays; a right one is that of the image that is left.
                given = zip(kept, found, strict=True)
                names.append([None if region.label == called[n] else region.label for region, n in given])
        drawn = drawing(narrow, sizes, self._rays, truths=True)
        again = [
            (image, regions_of(truth, [own or new for own, new in zip(wrong, labels(truth), strict=True)]))
            for image, truth, wrong in zip(drawn, ground_truths(drawn), names, strict=True)
        ]
        return _filled(len(images), known, again)


def _subjects(images: Images, regions: Regions) -> list[int | None]:
    """The subject that each region shows in its image, None if unknown."""
    found = answer_known(images, lambda i, truth: subject_at(truth, regions[i]))
    return [None if isinstance(subject, ItemError) else subject for subject in found]


def _filled(count: int, places: Sequence[int], answers: Sequence) -> list:
    """`answers` at their indices, and everywhere else the error that the scene is not known."""
    found = dict(zip(places, answers, strict=True))
    return [found.get(place, UNKNOWN) for place in range(count)]
