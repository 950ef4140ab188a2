"""INSET's interleaved caption (arXiv 2605.12305), written from the scene: each object once by a phrase of its own.

"a striped red robot stands left of a teal tree. behind the tree is a navy car." with {"striped red robot": 1, ...}

Read next: `macro/scenes/language/captions.py` (`caption_with`), `frame_pairs.py`.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from macro.engines.ground_truth import scene_subset, subject_at
from macro.engines.procedural.vision import answer_known
from macro.engines.provider import Answers, Images, InterleavedCaption, Regions
from macro.scenes.graph import Scene
from macro.scenes.ground_truth.annotate import truth_subset
from macro.scenes.language import captions
from macro.scenes.language.lexicon import ORDINALS
from macro.sentence.spans import Truth
from macro.utils.errors import ItemError

_ARTICLES = ("a ", "an ", "the ")


def merge(
    images: Images,
    captions: Sequence[str],
    regions: Sequence[Regions],
    descriptions: Sequence[Sequence[str]],
    seeds: Sequence[int],
) -> Answers[InterleavedCaption]:
    """A caption that calls each region's subject by its description; the scene is used rather than the captions."""
    del captions

    def answer(i: int, truth: Truth) -> InterleavedCaption | ItemError:
        if not all(text.strip() for text in descriptions[i]):
            return ItemError("a region has no description")
        rng = np.random.default_rng([seeds[i], 6])
        return interleaved(images[i].scene, truth, regions[i], phrases_of(descriptions[i]), rng)

    return answer_known(images, answer)


def phrases_of(descriptions: Sequence[str]) -> list[str]:
    """Descriptions without articles, none of which is a part of another: "first red dog", "second red dog"."""
    bare = [_without_article(" ".join(text.split())) for text in descriptions]
    shared = {
        phrase
        for i, phrase in enumerate(bare)
        if any(captions.count_phrase(other, phrase) for j, other in enumerate(bare) if j != i)
    }
    seen: Counter[str] = Counter()
    out = []
    for phrase in bare:
        out.append(f"{ORDINALS[seen[phrase]]} {phrase}" if phrase in shared else phrase)
        seen[phrase] += 1
    return out


def _without_article(text: str) -> str:
    article = next((article for article in _ARTICLES if text.lower().startswith(article)), "")
    return text[len(article) :]


def interleaved(
    scene: Scene, truth: Truth, regions: Regions, phrases: Sequence[str], rng: np.random.Generator
) -> InterleavedCaption | ItemError:
    """A true caption of a scene's image in which `phrases[i]` names what `regions[i]` shows, and occurs once."""
    subjects = [subject_at(truth, region) for region in regions]
    if None in subjects or len(set(subjects)) < len(subjects):
        return ItemError("a region shows no subject of its own")
    order = captions.order_of_mention(scene_subset(scene, subjects), rng)
    walk = [subjects[i] for i in order]
    spoken = [phrases[i] for i in order]
    caption = captions.caption_with(scene_subset(scene, walk), truth_subset(truth, walk), rng, spoken)
    unclear = next((phrase for phrase in phrases if captions.count_phrase(caption, phrase) != 1), None)
    if unclear is not None:
        return ItemError(f"the phrase {unclear!r} does not stand exactly once in {caption!r}")
    return InterleavedCaption(caption, {phrase: number for number, phrase in enumerate(phrases, 1)})
