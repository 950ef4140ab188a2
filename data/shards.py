"""A shard of an engine's data set: what determines it, and how it is built; its bytes do not depend on the runner.

A `Recipe` is small and can be sent to any process: engine and provider are names in it, and every process that
builds shards loads them once. The indices of a shard go through the engine's steps together, as one batch.
Read next: `runners.py` (what builds them), `beam.py`, `macro/engines/core.py`, `macro/inputs/shards.py` (files).
"""

import dataclasses
import functools
import importlib
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from macro.engines import core
from macro.engines.core import EngineOutput, Rejection
from macro.engines.provider import Provider
from macro.inputs.shards import Shards
from macro.sentence.spans import Sentence


@dataclass(frozen=True)
class ProviderSpec:
    """How to make the provider: `maker` ("module:function") is called with `options`, once per process.

    An engine that needs no provider has a spec without maker.
    """

    name: str
    maker: str = ""
    options: Any = None


@dataclass(frozen=True)
class Recipe:
    """How to build the shards: `engine` ("module:NAME") and its options, the provider, the seed, where they lie."""

    engine: str
    options: Any
    provider: ProviderSpec
    seed: int
    shards: Shards


def load(name: str) -> Any:
    """The object that "module:NAME" names."""
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)


def provider_of(provider: ProviderSpec) -> Provider | None:
    """The provider, loaded on its first use in a process, and kept."""
    with _LOADING:
        return _stages(provider)


_LOADING = threading.Lock()  # Beam may start several transforms of a process at once


@functools.cache
def _stages(provider: ProviderSpec) -> Provider | None:
    return load(provider.maker)(provider.options) if provider.maker else None


def make_shard(recipe: Recipe, number: int) -> int:
    """Builds a shard and writes it, complete or not at all; returns its number."""
    engine, places, provider = load(recipe.engine), recipe.shards.places(number), provider_of(recipe.provider)
    try:
        made = core.make(engine, provider, recipe.options, recipe.seed, places)
    finally:
        note_spent(recipe, provider)
    recipe.shards.write(number, made.samples, about(made), dead_letters(made.dead))
    return number


def note_spent(recipe: Recipe, provider: Provider | None) -> None:
    """Writes beside the shards what this process has spent on the stages since the last call, if anything."""
    counts = {} if provider is None else provider.spent()
    if counts:
        recipe.shards.write_spent(counts)


def about(made: EngineOutput) -> dict:
    """Contents of a shard's JSON file: what filters kept and dropped, tasks and buckets, numbers of references."""
    filters: dict[str, dict[str, int]] = {}
    for (name, verdict), count in sorted(made.counts.items()):
        filters.setdefault(name, {"kept": 0, "dropped": 0})[verdict] = count
    tasks: dict[str, Counter] = {}
    for sentence in made.samples:
        tasks.setdefault(sentence.task, Counter())[bucket_of(sentence)] += 1
    references = Counter(str(len(sentence.images)) for sentence in made.samples)
    return {"filters": filters, "tasks": tasks, "references": references}


def bucket_of(sentence: Sentence) -> str:
    """The bucket in the engine's notes, else MACRO's bucket."""
    return sentence.notes.get("bucket") or bucket_of_count(len(sentence.images))


def bucket_of_count(references: int) -> str:
    """MACRO's bucket of a number of images, as it is published: "1-3", "4-5", "6-7", ">=8" (and "0")."""
    buckets = (("0", 0), ("1-3", 3), ("4-5", 5), ("6-7", 7))
    return next((name for name, most in buckets if references <= most), ">=8")


def dead_letters(dead: Sequence[Rejection]) -> list[dict]:
    """Rejections as the dead-letter file holds them, by index, then attempt."""
    return [dataclasses.asdict(each) for each in sorted(dead, key=lambda each: (each.index, each.attempt))]
