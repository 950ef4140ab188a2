"""Stories from scenes, and the stage that turns a page of one into an instruction with earlier images.

An earlier image is needed when somebody of the page to draw is in it: the very one, not a double. Places need none,
the text says what they look like. Read next: `macro/scenes/storybook.py`, `judge.py`.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from macro.engines.material.types import EngineImage, Page, Story
from macro.engines.procedural.generators import drawing
from macro.engines.provider import RewrittenPage
from macro.scenes import storybook as tales
from macro.scenes.graph import Scene, Subject
from macro.scenes.language.lexicon import listed
from macro.scenes.render.batches import render_with_truth
from macro.scenes.similarity import subject_similarity
from macro.sentence.prompt import marker
from macro.utils.errors import ItemError

_UNKNOWN = ItemError("a page shows no scene that is known")
_ASKED = ("illustrate this page:", "draw the next page:", "the next page of the story:")


class Stories:
    """`story` of the sources.

    Args:
        size: of the pages' images, pixels a side.
        rays: samples per pixel, 1..4.
    """

    def __init__(self, size: int, rays: int):
        self._size, self._rays = size, rays

    def story(self, seed: int, index: int) -> Story:
        rng = np.random.default_rng([seed, index, 8])
        tale = tales.tale(rng)
        casts = tuple(tuple(tale.characters[who].name for who in leaf.cast) for leaf in tale.leaves)

        pages = Later(len(casts), functools.partial(_pages, tale, casts, rng, self._size, self._rays))
        distractors = Later(len(tale.distractors), functools.partial(_distractors, tale, self._size, self._rays))
        return Story(tale.title, pages, distractors, casts)


class Later(Sequence):
    """A list of known length that is made when it is first looked into: most stories are only leafed through.

    May be sent to another process, before or after, if `made` may.
    """

    def __init__(self, length: int, made: Callable[[], list]):
        self._length, self._made = length, made
        self._list: list | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int | slice) -> Any:
        if self._list is None:
            self._list = self._made()
        return self._list[place]


def _pages(
    tale: tales.Tale, casts: Sequence[tuple[str, ...]], rng: np.random.Generator, size: int, rays: int
) -> list[Page]:
    scenes = [leaf.scene for leaf in tale.leaves]
    drawn = enumerate(zip(scenes, render_with_truth(scenes, size, size, rays), strict=True))
    return [
        Page(tales.text_of(tale, n, truth, rng), EngineImage(pixels, scene), casts[n])
        for n, (scene, (pixels, truth)) in drawn
    ]


def _distractors(tale: tales.Tale, size: int, rays: int) -> list[tuple[int, EngineImage]]:
    strangers = [scene for _, scene in tale.distractors]
    images = drawing(strangers, [size] * len(strangers), rays)
    return [(place, image) for (place, _), image in zip(tale.distractors, images, strict=True)]


def rewrite(
    texts: Sequence[Sequence[str]],
    images: Sequence[Sequence[EngineImage]],
    text: Sequence[str],
    targets: Sequence[EngineImage],
    seeds: Sequence[int],
) -> list[RewrittenPage | ItemError]:
    """Keeps the images with somebody of the target, and names them where the text first speaks of who that is."""
    del texts
    return [_rewritten(*asked) for asked in zip(images, text, targets, seeds, strict=True)]


def _rewritten(images: Sequence[EngineImage], text: str, target: EngineImage, seed: int) -> RewrittenPage | ItemError:
    if any(image.scene is None for image in (target, *images)):
        return _UNKNOWN
    wanted = target.scene.subjects
    shown = {
        place: [n for n, one in enumerate(wanted) if is_in(one, image.scene)] for place, image in enumerate(images)
    }
    kept = tuple(place for place, who in shown.items() if who)
    numbers = {place: number for number, place in enumerate(kept, 1)}
    for n, places in _shared_out({place: shown[place] for place in kept}).items():
        markers = [marker(numbers[place]) for place in places]
        named = listed(markers)
        text = re.sub(rf"\b{re.escape(wanted[n].kind)}\b", lambda noun, by=named: f"{noun[0]} of {by}", text, count=1)
    return RewrittenPage(f"{np.random.default_rng([seed, 9]).choice(_ASKED)} {text}", kept)


def is_in(subject: Subject, scene: Scene) -> bool:
    """Whether a scene shows that very subject."""
    return any(subject_similarity(subject, other) > 0.999 for other in scene.subjects)


def _shared_out(shown: dict[int, list[int]]) -> dict[int, list[int]]:
    """Which images each subject is named by, given who is on which: each one once, and nobody is left out.

    Whoever is on few images chooses first. One whose images are all taken is named by the first of them again.
    """
    on = {n: [place for place, who in shown.items() if n in who] for who in shown.values() for n in who}
    given: dict[int, list[int]] = {n: [] for n in sorted(on)}
    taken: set[int] = set()
    for n in sorted(on, key=lambda n: (len(on[n]), n)):
        free = [place for place in on[n] if place not in taken]
        given[n] = (free or on[n])[:1]
        taken |= set(given[n])
    for place in shown:
        if place not in taken:
            given[min(shown[place], key=lambda n: (len(given[n]), n))].append(place)
    return {n: sorted(places) for n, places in given.items()}
