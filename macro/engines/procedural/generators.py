"""Scenes sampled and rendered: scene prompts, images, novel views of subjects, images with subjects removed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from macro.engines.ground_truth import ground_truths, labels, scene_subset, subject_at
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
from macro.scenes.render.batches import render_images
from macro.utils.errors import ItemError

UNKNOWN = ItemError("shows no subject of a scene that is known")


def write_scene(asks: Sequence[SceneRequest], seeds: Sequence[int]) -> Answers[ScenePrompt]:
    """Samples a scene from those categories that are kinds of ours; the caption names its subjects and ground."""
    return [_idea(ask, np.random.default_rng([seed, 0])) for ask, seed in zip(asks, seeds, strict=True)]


def _idea(ask: SceneRequest, rng: np.random.Generator) -> ScenePrompt | ItemError:
    kinds = tuple(category for category in ask.categories if category in KINDS)
    if not kinds:
        return ItemError(f"none of the categories {', '.join(ask.categories)} is a kind of subject")
    scene = captions.in_order_of_mention(layout_sampler.sample_scene(rng, ask.count, kinds), rng)
    named = labels(scene)
    listed = ", ".join(a_or_an(name) for name in named)
    return ScenePrompt(f"{listed} on {ground_words(scene.surroundings)}", named, scene)


def drawing(scenes: Sequence[Scene], sizes: Sequence[int], rays: int) -> list[EngineImage]:
    """Renders scenes as square images of these sides, each size in one batch."""
    images: list[EngineImage | None] = [None] * len(scenes)
    for size in dict.fromkeys(sizes):
        places = [i for i, side in enumerate(sizes) if side == size]
        for i, pixels in zip(places, render_images([scenes[i] for i in places], size, rays), strict=True):
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
        drawn = drawing([ideas[i].scene for i in known], [sizes[i] for i in known], self._rays)
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
        narrow, sizes, known = [], [], []
        for i, (image, kept) in enumerate(zip(images, regions, strict=True)):
            found = _subjects([image] * len(kept), kept)
            if None not in found and len(set(found)) == len(found):
                known.append(i)
                narrow.append(scene_subset(image.scene, found))
                sizes.append(image.pixels.shape[0])
        drawn = drawing(narrow, sizes, self._rays)
        again = [
            (image, regions_of(truth, [region.label for region in regions[i]]))
            for i, image, truth in zip(known, drawn, ground_truths(drawn), strict=True)
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
