"""Builds the shards on many machines with Apache Beam; every step of the engine is a transform of its own.

    shards -> begin -> detect -> area -> ... -> try again -> finish -+-> samples
                                                                     +-> dead letters

An element is one shard, (number, Batch): all of its candidates go through a step together. All attempts after the
first are one transform: written out step by step, four attempts would only make the pipeline four times as long to
set up. Every filter has two counters, "area kept" and "area dropped". A worker loads its models once
(`shards.provider_of`). The files are those that `runners.local` writes, byte by byte.

Workers need this checkout and `--out`: a folder that all of them see, or a bucket.
Read next: `shards.py`, `macro/engines/core.py`.
"""

import shlex
import threading
import time
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import TaggedOutput

from data.shards import Recipe, about, dead_letters, load, note_spent, provider_of
from macro.engines import core
from macro.engines.core import Batch, EngineOutput
from macro.utils.errors import UserError

# Beam's "DirectRunner" first looks for a program to download; this is the runner in pure Python.
_DIRECT = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_POLL = 1.0  # seconds between two checks of which shards are finished; more where a check itself takes long


def run(
    recipe: Recipe, missing: Sequence[int], workers: int = 1, runner: str = "DirectRunner", options: str = ""
) -> Iterator[int]:
    """Builds the shards with Beam; yields the number of each once its files are written.

    Args:
        workers: processes of the DirectRunner; other runners take theirs from `options`,
            "--name=value --name=value".
        runner: DirectRunner, or any that Beam knows.

    Raises:
        UserError: `workers` given for another runner than the DirectRunner; options that the runner needs are missing.
    """
    if not missing:
        return
    argv = shlex.split(options)
    if runner == "DirectRunner":
        argv = [f"--runner={_DIRECT}", *argv]
        argv += [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"] if workers > 1 else []
    elif workers > 1:
        raise UserError(f"--workers={workers}: is not {runner}'s; say it in --runner_options, as that runner calls it")
    else:
        argv = [f"--runner={runner}", *argv]
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(argv))
    except ValueError as error:  # Beam's check of the runner's required options
        raise UserError(f"--runner={runner}: {error}") from error
    expand(pipeline, recipe, missing)
    yield from _watched(pipeline, recipe, missing)


def expand(pipeline: beam.Pipeline, recipe: Recipe, missing: Sequence[int]) -> None:
    """Adds the transforms that build these shards to a pipeline."""
    engine = load(recipe.engine)
    # Reshuffled: otherwise all shards of one Create may stay on one worker.
    shards = pipeline | f"{engine.name}/shards" >> beam.Create(list(missing)) | beam.Reshuffle()
    batches = shards | f"{engine.name}/begin" >> beam.ParDo(Begin(recipe))
    for place, step in enumerate(engine.steps):
        batches |= f"{engine.name}/{step.name}" >> beam.ParDo(Advance(recipe, place))
    batches |= f"{engine.name}/try again" >> beam.ParDo(TryAgain(recipe))
    made = batches | f"{engine.name}/finish" >> beam.ParDo(Finish(recipe)).with_outputs("dead", main="made")
    made.made | f"{engine.name}/samples" >> beam.ParDo(WriteSamples(recipe))
    made.dead | f"{engine.name}/dead letters" >> beam.ParDo(WriteDead(recipe))


class _Shard(beam.DoFn):
    """What all transforms share: the recipe and, once a worker has started, the engine and its provider."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    def setup(self):
        self.engine = load(self.recipe.engine)
        self.provider = provider_of(self.recipe.provider)


class Begin(_Shard):
    """Number -> (number, the first candidates of its indices)."""

    def process(self, number: int):
        places = self.recipe.shards.places(number)
        yield number, core.begin(self.engine, self.recipe.options, self.recipe.seed, places)


class Advance(_Shard):
    """Runs one step on a shard."""

    def __init__(self, recipe: Recipe, place: int):
        super().__init__(recipe)
        self.place = place

    def process(self, shard: tuple[int, Batch]):
        number, batch = shard
        batch = core.advance(batch, self.engine.steps[self.place], self.provider, self.recipe.options)
        note_spent(self.recipe, self.provider)
        yield number, batch


class TryAgain(_Shard):
    """All attempts after the first: dropped candidates start anew, up to the engine's `max_attempts`."""

    def process(self, shard: tuple[int, Batch]):
        number, batch = shard
        batch = core.go_on(batch, self.engine, self.provider, self.recipe.options)
        note_spent(self.recipe, self.provider)
        yield number, batch


class Finish(_Shard):
    """A shard's sentences and counts; its rejections as a separate output."""

    def process(self, shard: tuple[int, Batch]):
        number, batch = shard
        made = core.finish(batch, self.engine, self.recipe.options)
        for (name, verdict), count in made.counts.items():
            Metrics.counter(self.engine.name, f"{name} {verdict}").inc(count)
        yield TaggedOutput("dead", (number, dead_letters(made.dead)))
        yield number, made


class WriteSamples(_Shard):
    """Writes a shard's samples."""

    def process(self, shard: tuple[int, EngineOutput]):
        number, made = shard
        self.recipe.shards.write_samples(number, made.samples, about(made))


class WriteDead(_Shard):
    """Writes a shard's rejections."""

    def process(self, shard: tuple[int, list[dict]]):
        number, letters = shard
        self.recipe.shards.write_dead(number, letters)


def _watched(pipeline: beam.Pipeline, recipe: Recipe, missing: Sequence[int]) -> Iterator[int]:
    """Runs the pipeline in another thread, and yields the shards' numbers as their files appear.

    Ctrl-C ends this process and what it runs itself; a job on a cluster must be ended there.
    """
    errors: list[BaseException] = []

    def target():
        try:
            pipeline.run().wait_until_finish()
        except BaseException as error:  # handed to the thread that waits
            errors.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    left = set(missing)
    while left or thread.is_alive():
        alive, began = thread.is_alive(), time.monotonic()
        still = left & set(recipe.shards.missing())
        pause = max(_POLL, 10 * (time.monotonic() - began))
        yield from sorted(left - still)
        left = still
        if not alive:
            break
        thread.join(pause)
    if errors:
        raise _cause(errors[0])
    if left:
        raise RuntimeError(f"Beam has ended, but {len(left)} shards are not there; can it see {recipe.shards.folder}?")


def _cause(error: BaseException) -> BaseException:
    """The `UserError` inside what Beam wraps around it, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__
    return error
