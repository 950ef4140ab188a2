"""Stories from scenes, and the stage that turns a page into an instruction with earlier images.

An earlier image is needed if it shows a character of the page to draw: the same one, not a double. Places need no
image, since the text describes them. Read next: `macro/scenes/storybook.py`, `judge.py`.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np

from macro.engines.material.types import EngineImage, Lazy, Page, Story
from macro.engines.procedural.generators import drawing
from macro.engines.procedural.vision import UNKNOWN
from macro.engines.provider import Answers, Images, RewrittenPage
from macro.scenes import storybook as tales
from macro.scenes.graph import Scene, Subject
from macro.scenes.language.lexicon import listed
from macro.scenes.render.batches import render_with_truth
from macro.scenes.similarity import subject_similarity
from macro.sentence.prompt import marker
from macro.utils.errors import ItemError

_ASKED = ("illustrate this page:", "draw the next page:", "the next page of the story:")


def story(seed: int, index: int, size: int, rays: int) -> Story:
    """A story of images `size` pixels a side, rendered on access: most images are never used."""
    rng = np.random.default_rng([seed, index, 8])
    tale = tales.tale(rng)
    casts = tuple(tuple(tale.characters[who].name for who in leaf.cast) for leaf in tale.leaves)
    pages = Lazy(len(casts), functools.partial(_pages, tale, casts, rng, size, rays))
    distractors = Lazy(len(tale.distractors), functools.partial(_distractors, tale, size, rays))
    return Story(tale.title, pages, distractors, casts)


def _pages(
    tale: tales.Tale, casts: Sequence[tuple[str, ...]], rng: np.random.Generator, size: int, rays: int, places: object
) -> dict[int, Page]:
    """All pages: one random stream words them all."""
    del places
    scenes = [leaf.scene for leaf in tale.leaves]
    drawn = enumerate(zip(scenes, render_with_truth(scenes, size, size, rays), strict=True))
    return {
        n: Page(tales.text_of(tale, n, truth, rng), EngineImage(pixels, scene), casts[n])
        for n, (scene, (pixels, truth)) in drawn
    }


def _distractors(tale: tales.Tale, size: int, rays: int, places: Sequence[int]) -> dict[int, tuple[int, EngineImage]]:
    befores, strangers = zip(*(tale.distractors[n] for n in places), strict=True)
    images = drawing(strangers, [size] * len(strangers), rays)
    return dict(zip(places, zip(befores, images, strict=True), strict=True))


def rewrite(
    texts: Sequence[Sequence[str]], images: Sequence[Images], text: Sequence[str], targets: Images, seeds: Sequence[int]
) -> Answers[RewrittenPage]:
    """Keeps the images with a character of the target, and adds each where the text first mentions that character."""
    del texts
    return [_rewritten(*asked) for asked in zip(images, text, targets, seeds, strict=True)]


def _rewritten(images: Images, text: str, target: EngineImage, seed: int) -> RewrittenPage | ItemError:
    if any(image.scene is None for image in (target, *images)):
        return UNKNOWN
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
    """Whether a scene shows that very subject, not a double."""
    return any(subject_similarity(subject, other) > 0.999 for other in scene.subjects)


def _shared_out(shown: dict[int, list[int]]) -> dict[int, list[int]]:
    """Assigns images to subjects, given which subjects each shows: each image once, at least one per subject.

    The subject on the fewest images chooses first. One whose images are all taken gets the first of them again.
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
