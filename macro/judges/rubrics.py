"""Rubrics by which a judge scores an image made from others, and how a benchmark aggregates the scores.

    ask = question("spatial", prompt, references, image, truth)     a `chat.LlmRequest`; its value is
    {"viewpoint": 7.0, "content": 8.5}                                 scores 0..10 by name
    sample_score("spatial", scores)                                    7.71

One rubric per task of MACRO's (arXiv 2603.25319): two aspects each, of which customization's first is scored once for
every reference. MacroBench: an aspect's scores are combined by the harmonic mean, a sample's score is the square root
of the product of its two aspects, a task's the mean over samples, and the whole the mean over tasks. A zero stays a
zero. The questions are our own. Read next: `chat.py`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from macro.judges.chat import LlmRequest
from macro.judges.json_schema import Schema, number, obj, text
from macro.utils.errors import UserError
from macro.utils.images import Pixels

LOW, HIGH = 0, 10


@dataclass(frozen=True)
class Aspect:
    """One thing that is scored: its name, its question, and what the ends and the middle of the scale mean.

    `each`: it has one score for every reference, `name_1`, `name_2`, ...
    """

    name: str
    asks: str
    scale: str
    each: bool = False

    def names(self, references: int) -> tuple[str, ...]:
        return tuple(f"{self.name}_{n}" for n in range(1, references + 1)) if self.each else (self.name,)


@dataclass(frozen=True)
class Rubric:
    """How images of one task are judged.

    Attributes:
        name: the task.
        shown: a description of the images that the judge sees.
        aspects: what is scored.
        sees_truth: whether they include the true target.
    """

    name: str
    shown: str
    aspects: tuple[Aspect, ...]
    sees_truth: bool = False

    def scores(self, references: int) -> tuple[str, ...]:
        """Names of the scores for so many references, in the order of the schema."""
        return tuple(name for aspect in self.aspects for name in aspect.names(references))

    def schema(self, references: int) -> Schema:
        """Of the judge's answer. Observations come first: a score given after them is a better one."""
        scores = {name: number(LOW, HIGH) for name in self.scores(references)}
        return obj(observations=text(), **scores)


_CUSTOMIZATION = Rubric(
    "customization",
    "Somebody gave the reference images and an instruction that names them as <image n>; the last image was made "
    "from both.",
    (
        Aspect(
            "consistency",
            "one score for each reference: is what the instruction takes from it (a person, a garment, a thing, a "
            "place, a style) recognisably the same in the made image? Another pose, size, light or angle is no "
            "fault; another identity, shape, colour, pattern or material is. Score each reference by itself.",
            "0: it is missing, or something else stands for it. 3: the same sort of thing. 6: plainly meant to be it, "
            "with details lost or changed. 8: small deviations only. 10: unmistakably the same one.",
            each=True,
        ),
        Aspect(
            "following",
            "does the made image do what the instruction says: everybody and everything that it names, no more of "
            "them than it names, in the actions, places and relations it describes, in one believable scene?",
            "0: nothing of it. 3: some of its subjects, its scene missed. 6: most of it, with one clear mistake. 8: "
            "all but a detail. 10: all of it.",
        ),
    ),
)

_ILLUSTRATION = Rubric(
    "illustration",
    "The reference images stood in a text, where <image n> marks their places; the last image was made to "
    "illustrate the text's end.",
    (
        Aspect(
            "text",
            "does the made image show what the text calls for at that place: its subject, its action, its details?",
            "0: it has nothing to do with it. 3: the topic only. 6: the main point, with something important missing "
            "or wrong. 8: a detail is off. 10: exactly what the text calls for.",
        ),
        Aspect(
            "image",
            "does the made image belong to the images before it: who comes back looks the same, places and things "
            "stay what they were, the manner of drawing goes on? Repeating an image is no way to belong to it.",
            "0: another world, or a mere copy. 3: the manner alone, or a figure alone, is kept. 6: those who come "
            "back are recognisable, with visible drift. 8: small differences. 10: as if by the same hand.",
        ),
    ),
)

_SPATIAL = Rubric(
    "spatial",
    "The reference images show one object or one place from views that the instruction names; the next image is "
    "the true view that the instruction asks for; the last one was made without knowing it.",
    (
        Aspect(
            "viewpoint",
            "is the made image taken from where the true one is: the same side, height and direction, the same "
            "parts in sight and the same ones hidden, left and right not exchanged?",
            "0: another view altogether, or one of the given ones again. 3: the right half of the world. 6: about "
            "there, clearly turned or shifted. 8: off by little. 10: the same view.",
        ),
        Aspect(
            "content",
            "is what is seen the same object or place as in the true image: shapes, parts, colours, materials, and "
            "how they are arranged? Do not count the view itself.",
            "0: something else. 3: the same sort of thing. 6: the same one with parts wrong, missing or invented. 8: "
            "small deviations. 10: no difference but in the drawing.",
        ),
    ),
    sees_truth=True,
)

_TEMPORAL = Rubric(
    "temporal",
    "The reference images are key frames of one film in their order, which the instruction sums up; the last "
    "image was made as the frame that comes next.",
    (
        Aspect(
            "context",
            "does the made image take place in the same film: the same figures with the same looks, the same "
            "setting, the same light and image style as in the frames before?",
            "0: another film. 3: the same kind of setting only. 6: figures and setting are recognisable, with visible "
            "changes that nothing explains. 8: small ones. 10: of the same film without doubt.",
        ),
        Aspect(
            "sequence",
            "is it the next moment: does it carry on what the frames and the summary tell, neither repeating one of "
            "them nor leaving out what must come between?",
            "0: it repeats a frame, or what it shows cannot follow. 3: it could stand anywhere in the film. 6: a "
            "possible next moment, though jumpy or unclear. 8: a natural one. 10: just what comes next.",
        ),
    ),
)

RUBRICS: Mapping[str, Rubric] = MappingProxyType(
    {rubric.name: rubric for rubric in (_CUSTOMIZATION, _ILLUSTRATION, _SPATIAL, _TEMPORAL)}
)


def rubric(name: str) -> Rubric:
    """The rubric of a task; UserError where there is none of that name."""
    if name not in RUBRICS:
        raise UserError(f"rubric {name!r}: there is none; choose from {', '.join(RUBRICS)}")
    return RUBRICS[name]


# ---- asking ----


def question(
    name: str,
    prompt: str,
    references: Sequence[Pixels],
    image: Pixels,
    truth: Pixels | None = None,
    seed: int = 0,
) -> LlmRequest:
    """The request to a judge; its value is {score's name: 0..10}.

    Args:
        name: of the rubric.
        prompt: the instruction, its images named `<image n>`; references[n - 1] is `<image n>`.
        references: uint8[h, w, 3] each.
        image: the image to judge.
        truth: the true target, where the rubric shows it to the judge, and only there.

    Raises:
        UserError: no such rubric; a truth that is missing, or one that this judge must not see.
    """
    asked = rubric(name)
    if asked.sees_truth != (truth is not None):
        raise UserError(f"rubric {name}: {'give it the true target' if asked.sees_truth else 'it sees no true target'}")
    told = {"stage": "judge", "rubric": name, "prompt": prompt, "references": len(references), "seed": seed}
    parts: list[str | Pixels] = [json.dumps(told, ensure_ascii=False)]
    for n, pixels in enumerate(references, 1):
        parts += [f"Reference <image {n}>:", pixels]
    if truth is not None:
        parts += ["The true image:", truth]
    parts += ["The made image, which is to be judged:", image]
    names = asked.scores(len(references))
    return LlmRequest(
        _system(asked), tuple(parts), asked.schema(len(references)), seed, lambda answer: _read(answer, names)
    )


def _system(asked: Rubric) -> str:
    aspects = "\n".join(f"- {aspect.name}: {aspect.asks}\n  {aspect.scale}" for aspect in asked.aspects)
    return (
        f"You judge images that a program made, strictly and without favour. {asked.shown}\n"
        f"Look at every image. Write in `observations` (under 80 words) what speaks for and against the made "
        f"one, then score it from {LOW} to {HIGH}; halves and numbers between those described are allowed:\n{aspects}"
    )


def _read(answer: dict, names: Sequence[str]) -> dict[str, float]:
    return {name: float(answer[name]) for name in names}


# ---- aggregation ----


def harmonic_mean(values: Sequence[int | float]) -> float:
    """0 if any value is 0."""
    if not values:
        raise ValueError("no values to take the mean of")
    if min(values) <= 0:
        return 0.0
    return len(values) / sum(1 / value for value in values)


def aspects_of(name: str, scores: Mapping[str, int | float]) -> dict[str, float]:
    """One score per aspect: the harmonic mean over the references where each has its own.

    Raises:
        UserError: no such rubric, or scores that are not its own or not within 0..10.
    """
    asked = rubric(name)
    references = sum(score.rpartition("_")[0] in {a.name for a in asked.aspects if a.each} for score in scores)
    wanted = asked.scores(references)
    if set(wanted) != set(scores) or any(not aspect.names(references) for aspect in asked.aspects):
        raise UserError(f"rubric {name}: scores {sorted(scores)}, but it gives {', '.join(asked.scores(1))}")
    for score, value in scores.items():
        if not LOW <= value <= HIGH:
            raise UserError(f"rubric {name}: {score} is {value}, outside {LOW} to {HIGH}")
    return {a.name: harmonic_mean([scores[score] for score in a.names(references)]) for a in asked.aspects}


def sample_score(name: str, scores: Mapping[str, int | float]) -> float:
    """MacroBench's score of one sample, 0..10: the square root of the product of its two aspects.

    Raises:
        UserError: as `aspects_of`.
    """
    first, second = aspects_of(name, scores).values()
    return math.sqrt(first * second)


def bench_score(samples: Mapping[str, Sequence[int | float]]) -> float:
    """The mean over tasks of the mean over their samples' scores; no task may be empty."""
    return sum(sum(scores) / len(scores) for scores in samples.values()) / len(samples)
