"""Stages for tests of the spatial and the temporal task: rendered material, small, and the judge who knows scenes."""

from macro.engines.core import Engine
from macro.engines.macrodata import Options
from macro.engines.macrodata.mixture import BUCKETS
from macro.engines.procedural import videos
from macro.engines.procedural.judge import Judging
from macro.engines.procedural.material import RenderedMaterial
from macro.engines.procedural.noise import Noise
from macro.engines.provider import Provider

SIZE = 32
OPTIONS = Options(size=SIZE)


class Rendered(RenderedMaterial):
    """Small rendered material; `given` replaces single sources."""

    def __init__(self, **given):
        super().__init__(SIZE, 1)
        self.__dict__.update(given)


def nothing(*asked):
    raise AssertionError("a stage that this task does not need")


def provider(sources=None, **given):
    """The stages that these tasks need; `given` replaces some."""
    known = {
        "image_similarity": videos.image_similarity,
        "summarise": videos.summarise,
        "judge": Judging(Noise()).judge,
    }
    return Provider(sources or Rendered(), **known | given)


def engine(task, max_attempts=4):
    """A task alone, its buckets in turn."""
    buckets = list(BUCKETS)

    def start(seed, index, attempt, options):
        return task.start(seed, index, attempt, buckets[index % len(buckets)], options)

    return Engine("one task", "0", Options, start, task.STEPS, task.finish, max_attempts)
