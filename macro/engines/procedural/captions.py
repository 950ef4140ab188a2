"""True text for images whose scene is known: captions, noun phrases, instructions, chains of thought."""

from collections.abc import Sequence

import numpy as np

from macro.engines.ground_truth import scene_subset, subject_at
from macro.engines.procedural.noise import Noise, chance
from macro.engines.procedural.vision import answer_known
from macro.engines.provider import Answers, Images, PromptRequest, Regions
from macro.scenes.graph import Scene
from macro.scenes.ground_truth.annotate import truth_subset
from macro.scenes.language import captions, chain_of_thought
from macro.scenes.language.lexicon import a_or_an, phrase_of
from macro.sentence.spans import Truth
from macro.utils.errors import ItemError

_STRAY = ItemError("a region shows no subject of its own")


def caption(images: Images, seeds: Sequence[int]) -> Answers[str]:
    """Names every visible subject and its position."""

    def answer(i: int, truth: Truth) -> str:
        seen = [n for n in range(len(truth.kinds)) if truth.masks[n].any()]
        scene, about = scene_subset(images[i].scene, seen), truth_subset(truth, seen)
        return captions.caption(scene, about, np.random.default_rng([seeds[i], 2]))

    return answer_known(images, answer)


def describe(images: Images, regions: Regions, seeds: Sequence[int]) -> Answers[str]:
    """A noun phrase for a subject: "a striped red dog", with its texture in half of the draws."""

    def answer(i: int, truth: Truth) -> str | ItemError:
        subject = subject_at(truth, regions[i])
        if subject is None:
            return _STRAY
        full = bool(np.random.default_rng([seeds[i], 3]).random() < 0.5)
        return a_or_an(phrase_of(truth, subject, full))

    return answer_known(images, answer)


class Writing:
    """The stages `instruct` and `think`."""

    def __init__(self, noise: Noise):
        self._noise = noise

    def instruct(self, briefs: Sequence[PromptRequest]) -> Answers[str]:
        """Mentions every region's subject by its image, and true relations."""

        def write(brief: PromptRequest, scene: Scene, truth: Truth) -> str:
            count = len(truth.kinds)
            shown = [[n] for n in range(1, count + 1)]
            rng = chance(brief.image.scene, "instruct", brief.seed)
            if count > 1 and rng.random() < self._noise.words:
                i, j = rng.choice(count, 2, replace=False)
                shown[i], shown[j] = shown[j], shown[i]
            return captions.instruction(scene, truth, np.random.default_rng([brief.seed, 4]), shown)

        return _written(briefs, write)

    def think(self, briefs: Sequence[PromptRequest], prompts: Sequence[str]) -> Answers[str]:
        """Names positions, grid ranges and one relation of each subject; the scene is used rather than the prompt."""
        del prompts
        return _written(
            briefs, lambda b, scene, truth: chain_of_thought.cot(scene, truth, np.random.default_rng([b.seed, 5]))
        )


def _written(briefs: Sequence[PromptRequest], write) -> Answers[str]:
    """`write(brief, scene, truth)` with the scene limited to the subjects that the regions show, in their order."""

    def answer(i: int, truth: Truth) -> str | ItemError:
        order = [subject_at(truth, region) for region in briefs[i].regions]
        if None in order or len(set(order)) < len(order):
            return _STRAY
        return write(briefs[i], scene_subset(briefs[i].image.scene, order), truth_subset(truth, order))

    return answer_known([brief.image for brief in briefs], answer)
