"""A toy engine whose filters drop a good part, and its builder: what builds, runners and shards are tested with."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.builders import engine_builder
from data.shards import ProviderSpec
from macro.engines.core import Candidate, Engine, Step, notes_of, set_answers
from macro.sentence.prompt import in_sentence
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import ItemError, UserError


@dataclass(frozen=True)
class Options:
    """`strict`: share that the filter drops. `log`: file that gets a line for each batch drawn. `nap`: seconds."""

    strict: float = 0.4
    size: int = 8
    log: str = ""
    nap: float = 0.0
    broken: int = -1
    mistaken: int = -1


@dataclass(frozen=True)
class Answers:
    """Options of the toy provider."""

    base: int = 0


@dataclass(frozen=True, eq=False)
class ToyCandidate(Candidate):
    pixels: np.ndarray | None = None


BUCKETS = ("1-3", "4-5", "6-7", ">=8")


def start(seed, index, attempt, options):
    return ToyCandidate(seed, index, attempt, ("customization", "spatial")[index % 2], BUCKETS[index // 2 % 4])


def _draw(candidates, provider, options):
    """The provider is asked for the base of all images; index `broken` raises, index `mistaken` is the user's."""
    if options.log:
        with Path(options.log).open("a") as file:
            file.write(f"{candidates[0].index} {candidates[0].attempt}\n")
    time.sleep(options.nap)
    for candidate in candidates:
        if candidate.index == options.broken:
            raise ZeroDivisionError("toy")
        if candidate.index == options.mistaken:
            raise UserError("toy: a mistake of the user's")

    def drawn(candidate):
        if candidate.rng("fault").random() < 0.1:
            return ItemError("no answer came")
        return candidate.rng("draw").integers(0, 256, (options.size, options.size, 3), np.uint8)

    return set_answers(candidates, "draw", "pixels", [drawn(candidate) for candidate in candidates])


def _area(candidates, provider, options):
    values = [candidate.rng("area").random() for candidate in candidates]
    return [
        candidate.check("area", value >= options.strict, value, f"{value:.3f} of 1")
        for candidate, value in zip(candidates, values, strict=True)
    ]


def finish(candidate, options):
    numbers = range(1, (2, 4, 6, 9)[BUCKETS.index(candidate.bucket)] + 1)
    bound = candidate.task == "customization"
    images = [Image(np.roll(candidate.pixels, n, 0), subject=n if bound else None) for n in numbers]
    prompt = "".join(f"a <image {n}> " for n in numbers) + "and “more”"
    spans = (*in_sentence(prompt, images), Target(candidate.pixels))
    return Sentence(spans, candidate.task, candidate.index, notes=notes_of(candidate, ENGINE))


_STEPS = (Step("draw", _draw), Step("area", _area))
ENGINE = Engine("toys", "1.0.0", Options, start, _STEPS, finish, max_attempts=3, needs_provider=False)
loads = []


def provider(options: Answers) -> None:
    """Counts how often it is called; the toy engine asks nothing."""
    loads.append(options)


PROVIDER = ProviderSpec("toy", "tests.data.toy:provider", Answers())

Builder = engine_builder("tests.data.toy:ENGINE")
