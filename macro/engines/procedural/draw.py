"""Scenes written and drawn by the grammar: ideas, pictures, references from another view, pictures with less in."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from macro.engines.known import labels, narrowed, subject_at, truths
from macro.engines.procedural.look import regions_of
from macro.engines.procedural.noise import Noise
from macro.engines.sources import Picture
from macro.engines.stages import Fault, Idea, Region, SceneAsk
from macro.scenes.assets.catalog import KINDS
from macro.scenes.assets.palettes import COLOURS
from macro.scenes.graph import Scene
from macro.scenes.language import captions
from macro.scenes.language.lexicon import a_or_an, ground_words
from macro.scenes.layout import layout_sampler
from macro.scenes.render.batches import render_images

UNKNOWN = Fault("shows no subject of a scene that is known")


def write_scene(asks: Sequence[SceneAsk], seeds: Sequence[int]) -> list[Idea | Fault]:
    """Draws a scene of the categories that are kinds of ours; the caption names its subjects and its ground."""
    return [_idea(ask, np.random.default_rng([seed, 0])) for ask, seed in zip(asks, seeds, strict=True)]


def _idea(ask: SceneAsk, rng: np.random.Generator) -> Idea | Fault:
    kinds = tuple(category for category in ask.categories if category in KINDS)
    if not kinds:
        return Fault(f"none of the categories {', '.join(ask.categories)} is a kind of subject")
    scene = captions.in_order_of_mention(layout_sampler.sample_scene(rng, ask.count, kinds), rng)
    named = labels(scene)
    listed = ", ".join(a_or_an(name) for name in named)
    return Idea(f"{listed} on {ground_words(scene.surroundings)}", named, scene)


def drawing(scenes: Sequence[Scene], sizes: Sequence[int], rays: int) -> list[Picture]:
    """Scenes as square pictures of these sides, each size in one go."""
    pictures: list[Picture | None] = [None] * len(scenes)
    for size in dict.fromkeys(sizes):
        places = [i for i, side in enumerate(sizes) if side == size]
        for i, pixels in zip(places, render_images([scenes[i] for i in places], size, rays), strict=True):
            pictures[i] = Picture(pixels, scenes[i])
    return pictures


class Drawing:
    """The stages that render: `draw`, `redraw`, `without`."""

    def __init__(self, rays: int, noise: Noise):
        self._rays, self._noise = rays, noise

    def draw(self, ideas: Sequence[Idea], sizes: Sequence[int], seeds: Sequence[int]) -> list[Picture | Fault]:
        """The ideas' scenes; seeds change nothing, for an idea has one picture."""
        del seeds
        known = [i for i, idea in enumerate(ideas) if idea.scene is not None]
        drawn = drawing([ideas[i].scene for i in known], [sizes[i] for i in known], self._rays)
        return _filled(len(ideas), known, drawn)

    def redraw(
        self, pictures: Sequence[Picture], regions: Sequence[Region], sizes: Sequence[int], seeds: Sequence[int]
    ) -> list[Picture | Fault]:
        """The subject alone before a backdrop, in another view, pose and light."""
        subjects = _subjects(pictures, regions)
        known = [i for i, subject in enumerate(subjects) if subject is not None]
        alone = [self._reference(pictures[i].scene, subjects[i], seeds[i]) for i in known]
        return _filled(len(pictures), known, drawing(alone, [sizes[i] for i in known], self._rays))

    def _reference(self, scene: Scene, subject: int, seed: int) -> Scene:
        rng = np.random.default_rng([seed, 1])
        alone = layout_sampler.reference_scene(scene, subject, rng)
        if rng.random() >= self._noise.drift:
            return alone
        shown = alone.subjects[0]
        main = COLOURS[str(rng.choice([name for name, rgb in COLOURS.items() if rgb != shown.palette[0]]))]
        return replace(alone, subjects=(replace(shown, palette=(main, *shown.palette[1:])),))

    def without(
        self, pictures: Sequence[Picture], regions: Sequence[Sequence[Region]]
    ) -> list[tuple[Picture, list[Region]] | None | Fault]:
        """Only the regions' subjects, in their order, everything else as it was."""
        narrow, sizes, known = [], [], []
        for i, (picture, kept) in enumerate(zip(pictures, regions, strict=True)):
            found = _subjects([picture] * len(kept), kept)
            if None not in found and len(set(found)) == len(found):
                known.append(i)
                narrow.append(narrowed(picture.scene, found))
                sizes.append(picture.pixels.shape[0])
        drawn = drawing(narrow, sizes, self._rays)
        again = [
            (picture, regions_of(truth, [region.label for region in regions[i]]))
            for i, picture, truth in zip(known, drawn, truths(drawn), strict=True)
        ]
        return _filled(len(pictures), known, again)


def _subjects(pictures: Sequence[Picture], regions: Sequence[Region]) -> list[int | None]:
    """Which subject of its picture each region shows, None where that is not known."""
    known = [i for i, picture in enumerate(pictures) if picture.scene is not None]
    found: list[int | None] = [None] * len(pictures)
    for i, truth in zip(known, truths([pictures[i] for i in known]), strict=True):
        found[i] = subject_at(truth, regions[i])
    return found


def _filled(count: int, places: Sequence[int], answers: Sequence) -> list:
    """`answers` at their places, and everywhere else the fault that the scene is not known."""
    out: list = [UNKNOWN] * count
    for place, answer in zip(places, answers, strict=True):
        out[place] = answer
    return out
