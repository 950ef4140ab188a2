"""A toy engine whose filters drop a good part, and its builder: what builds, runners and shards are tested with."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from data.builders import EngineBuilder
from data.shards import Provider
from macro.engines.drafts import Draft, Engine, Step, fill, notes_of
from macro.engines.stages import Fault
from macro.sentence.formats import in_sentence
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import UserError


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
class ToyDraft(Draft):
    pixels: np.ndarray | None = None


BUCKETS = ("1-3", "4-5", "6-7", ">=8")


def start(seed, index, attempt, options):
    return ToyDraft(seed, index, attempt, ("customization", "spatial")[index % 2], BUCKETS[index // 2 % 4])


def _draw(drafts, stages, options):
    """The provider is asked for the base of all pictures; index `broken` raises, index `mistaken` is the user's."""
    if options.log:
        with Path(options.log).open("a") as file:
            file.write(f"{drafts[0].index} {drafts[0].attempt}\n")
    time.sleep(options.nap)
    for draft in drafts:
        if draft.index == options.broken:
            raise ZeroDivisionError("toy")
        if draft.index == options.mistaken:
            raise UserError("toy: a mistake of the user's")

    def drawn(draft):
        if draft.stream("fault").random() < 0.1:
            return Fault("no answer came")
        return draft.stream("draw").integers(0, 256, (options.size, options.size, 3), np.uint8)

    return fill(drafts, "draw", "pixels", [drawn(draft) for draft in drafts])


def _area(drafts, stages, options):
    values = [draft.stream("area").random() for draft in drafts]
    return [
        draft.passes("area", value >= options.strict, value, f"{value:.3f} of 1")
        for draft, value in zip(drafts, values, strict=True)
    ]


def finish(draft, options):
    numbers = range(1, (2, 4, 6, 9)[BUCKETS.index(draft.bucket)] + 1)
    bound = draft.task == "customization"
    images = [Image(np.roll(draft.pixels, n, 0), subject=n if bound else None) for n in numbers]
    prompt = "".join(f"a <image {n}> " for n in numbers) + "and “more”"
    spans = (*in_sentence(prompt, images), Target(draft.pixels))
    return Sentence(spans, draft.task, draft.index, notes=notes_of(draft, ENGINE))


ENGINE = Engine("toys", "1.0.0", Options, start, (Step("draw", _draw), Step("area", _area)), finish, tries=3)
loads = []


def stages(options: Answers) -> None:
    """Counts how often it is called; the toy engine asks nothing."""
    loads.append(options)


PROVIDER = Provider("toy", "tests.data.toy:stages", Answers())


class Builder(EngineBuilder, skip_registration=True):
    """A toy data set."""

    name = "toys"
    engine = "tests.data.toy:ENGINE"
    asks_stages = False
    VERSION = tfds.core.Version("1.0.0")
