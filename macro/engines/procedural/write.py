"""Words for pictures whose scene is known, all of them true: captions, noun phrases, instructions, thoughts."""

from collections.abc import Sequence

import numpy as np

from macro.engines.known import narrowed, narrowed_truth, subject_at
from macro.engines.procedural.look import known_answers
from macro.engines.procedural.noise import Noise, chance
from macro.engines.sources import Picture
from macro.engines.stages import Brief, Fault, Region
from macro.scenes.graph import Scene, Subject
from macro.scenes.language import captions, chain_of_thought
from macro.scenes.language.lexicon import TEXTURE_WORDS, a_or_an, named_colour
from macro.sentence.spans import Truth

_STRAY = Fault("a region shows no subject of its own")


def caption(pictures: Sequence[Picture], seeds: Sequence[int]) -> list[str | Fault]:
    """Every visible subject and where it stands."""

    def answer(i: int, truth: Truth) -> str:
        seen = [n for n in range(len(truth.kinds)) if truth.masks[n].any()]
        scene, about = narrowed(pictures[i].scene, seen), narrowed_truth(truth, seen)
        return captions.caption(scene, about, np.random.default_rng([seeds[i], 2]))

    return known_answers(pictures, answer)


def describe(pictures: Sequence[Picture], regions: Sequence[Region], seeds: Sequence[int]) -> list[str | Fault]:
    """A noun phrase for a subject: "a striped red dog", with its texture every other time."""

    def answer(i: int, truth: Truth) -> str | Fault:
        subject = subject_at(truth, regions[i])
        if subject is None:
            return _STRAY
        full = bool(np.random.default_rng([seeds[i], 3]).random() < 0.5)
        return a_or_an(phrase_of(pictures[i].scene.subjects[subject], full))

    return known_answers(pictures, answer)


def phrase_of(subject: Subject, full: bool) -> str:
    """ "red dog", or "striped red dog" where `full`."""
    texture = TEXTURE_WORDS[subject.texture] if full else ""
    return f"{texture} {named_colour(subject.palette[0])} {subject.kind}".strip()


class Writing:
    """The stages `instruct` and `think`."""

    def __init__(self, noise: Noise):
        self._noise = noise

    def instruct(self, briefs: Sequence[Brief]) -> list[str | Fault]:
        """Mentions every region's subject by its picture, and relations that hold."""

        def write(brief: Brief, scene: Scene, truth: Truth) -> str:
            count = len(truth.kinds)
            shown = [[n] for n in range(1, count + 1)]
            rng = chance(brief.picture.scene, "instruct", brief.seed)
            if count > 1 and rng.random() < self._noise.words:
                i, j = rng.choice(count, 2, replace=False)
                shown[i], shown[j] = shown[j], shown[i]
            return captions.instruction(scene, truth, np.random.default_rng([brief.seed, 4]), shown)

        return _written(briefs, write)

    def think(self, briefs: Sequence[Brief], prompts: Sequence[str]) -> list[str | Fault]:
        """Places, ranges and one relation of each; the prompt says nothing that the scene does not."""
        del prompts
        return _written(
            briefs, lambda b, scene, truth: chain_of_thought.cot(scene, truth, np.random.default_rng([b.seed, 5]))
        )


def _written(briefs: Sequence[Brief], write) -> list[str | Fault]:
    """`write(brief, scene, truth)` of what the regions show, in their order."""

    def answer(i: int, truth: Truth) -> str | Fault:
        order = [subject_at(truth, region) for region in briefs[i].regions]
        if None in order or len(set(order)) < len(order):
            return _STRAY
        return write(briefs[i], narrowed(briefs[i].picture.scene, order), narrowed_truth(truth, order))

    return known_answers([brief.picture for brief in briefs], answer)
