"""How an engine runs: candidates go through named steps and become sentences, or rejections with a reason.

    engine = music.ENGINE
    made = make(engine, procedural.provider(), options, seed=0, indices=range(8))
    made.samples, made.dead, made.counts

A candidate holds everything known so far about sample (seed, index); steps call stages (`provider.py`) and fill it in.
A candidate that a filter drops, or whose stage failed, is recorded as a rejection with its step and reason; its index
is tried again with other random numbers, up to `engine.max_attempts` times. So sample `index` depends on (seed, index,
options) and the provider alone, not on the rest of the batch. Steps take whole batches, which models need to be fast.
Read next: `music.py`, `inset/`, `macrodata/` (the engines); `data/build.py` (the command line).
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from macro.engines.provider import Provider, Region
from macro.sentence.prompt import ARRANGEMENTS
from macro.sentence.spans import Image, Sentence, Span
from macro.utils.errors import ItemError
from macro.utils.streams import stream


@dataclass(frozen=True)
class FilterResult:
    """The result of a filter: its name, whether the candidate passed, the value it tested, and the reason as text."""

    filter: str
    kept: bool
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Candidate:
    """Sample (seed, index) while it is being made; engines add fields of their own for what their steps find.

    Attributes:
        attempt: from 0; after a rejection the sample starts anew with the next attempt.
        task, bucket: those of the sample it will be: "compose", "1-3".
        filter_results: of all filters so far.
        dropped: (step, reason) once it is rejected.
    """

    seed: int
    index: int
    attempt: int
    task: str
    bucket: str
    filter_results: tuple[FilterResult, ...] = ()
    dropped: tuple[str, str] | None = None

    def seed_for(self, purpose: str) -> int:
        """A number below 2**31 for one purpose, such as a model's seed."""
        return int(self.rng(purpose).integers(2**31))

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose: with separate streams, one choice does not change the others."""
        return stream(self.seed, self.index, self.attempt, purpose)

    def source_index(self, rank: int, *which: str) -> int:
        """The index of its raw material, for the `rank`-th use of this kind.

        First attempts go through the material in order, so nothing is used twice before all is used once; later
        attempts take something at random, different for different `which`.
        """
        return self.seed_for(" ".join(("material", *which))) if self.attempt else rank

    def replace(self, **changes) -> "Candidate":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def check(self, name: str, kept: bool, value: float | None = None, reason: str = "") -> "Candidate":
        """A copy with a filter's result; if `kept` is false, dropped with the reason."""
        candidate = self.replace(filter_results=(*self.filter_results, FilterResult(name, bool(kept), value, reason)))
        return candidate if kept else candidate.replace(dropped=(name, reason))


D = TypeVar("D", bound=Candidate)
Run = Callable[[list[Any], Provider, Any], list[Any]]


@dataclass(frozen=True)
class Step:
    """A named step: `run(candidates, provider, options)` returns as many candidates, in order, dropped ones included.

    `provider` is None for an engine that needs none.
    """

    name: str
    run: Run


@dataclass(frozen=True)
class Engine:
    """A data engine.

    Attributes:
        name: of its data set; version: changes whenever the same input gives a different output.
        options: the dataclass of its settings.
        start: (seed, index, attempt, options) -> an empty candidate.
        steps: in order.
        finish: (candidate, options) -> its sentence.
        needs_provider: whether its steps call one.
        max_attempts: attempts per index before it is left out.
    """

    name: str
    version: str
    options: type
    start: Callable[[int, int, int, Any], Candidate]
    steps: tuple[Step, ...]
    finish: Callable[[Any, Any], Sentence]
    max_attempts: int = 4
    needs_provider: bool = True


@dataclass(frozen=True)
class Rejection:
    """A dropped candidate, for the dead-letter file."""

    index: int
    attempt: int
    task: str
    bucket: str
    step: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Candidates that are processed together: those still open, those done, the rejections, and the filters' counts.

    `counts` holds (filter or step, "kept" or "dropped") -> number.
    """

    seed: int
    candidates: tuple[Candidate, ...]
    done: tuple[Candidate, ...] = ()
    dead: tuple[Rejection, ...] = ()
    counts: Counter = dataclasses.field(default_factory=Counter)


def begin(engine: Engine, options: Any, seed: int, indices: Iterable[int]) -> Batch:
    """A batch with the first attempt at each index."""
    return Batch(seed, tuple(engine.start(seed, index, 0, options) for index in indices))


def advance(batch: Batch, step: Step, provider: Provider | None, options: Any) -> Batch:
    """The batch after one step on all candidates that are not dropped."""
    living = [candidate for candidate in batch.candidates if candidate.dropped is None]
    if not living:
        return batch
    stepped = step.run(living, provider, options)
    if [candidate.index for candidate in stepped] != [candidate.index for candidate in living]:
        raise ValueError(f"step {step.name}: gave back other candidates than it got")
    after = iter(stepped)
    return dataclasses.replace(
        batch, candidates=tuple(next(after) if c.dropped is None else c for c in batch.candidates)
    )


def settle(batch: Batch, engine: Engine, options: Any) -> Batch:
    """After the last step: survivors are done, dropped candidates become rejections, and their next attempts start.

    An index whose last attempt was dropped is left out.
    """
    done, dead, again, counts = list(batch.done), list(batch.dead), [], Counter(batch.counts)
    for candidate in batch.candidates:
        for result in candidate.filter_results:
            counts[result.filter, "kept" if result.kept else "dropped"] += 1
        if candidate.dropped is None:
            done.append(candidate)
            continue
        step, reason = candidate.dropped
        if not any(result.filter == step and not result.kept for result in candidate.filter_results):
            counts[step, "dropped"] += 1
        dead.append(Rejection(candidate.index, candidate.attempt, candidate.task, candidate.bucket, step, reason))
        if candidate.attempt + 1 < engine.max_attempts:
            again.append(engine.start(batch.seed, candidate.index, candidate.attempt + 1, options))
    done.sort(key=lambda candidate: candidate.index)
    return Batch(batch.seed, tuple(again), tuple(done), tuple(dead), counts)


@dataclass(frozen=True)
class EngineOutput:
    """Result of a batch: samples in the order of their indices, the rejections, and the filters' counts."""

    samples: list[Sentence]
    dead: list[Rejection]
    counts: Counter


def finish(batch: Batch, engine: Engine, options: Any) -> EngineOutput:
    """The sentences of all candidates that are done."""
    return EngineOutput([engine.finish(candidate, options) for candidate in batch.done], list(batch.dead), batch.counts)


def go_on(batch: Batch, engine: Engine, provider: Provider | None, options: Any) -> Batch:
    """After the last step of the first attempt: settles it, and runs all further attempts."""
    for _ in range(engine.max_attempts - 1):
        batch = settle(batch, engine, options)
        for step in engine.steps:
            batch = advance(batch, step, provider, options)
    return settle(batch, engine, options)


def make(engine: Engine, provider: Provider | None, options: Any, seed: int, indices: Iterable[int]) -> EngineOutput:
    """Samples `indices` of `seed`; an index whose every attempt was dropped is missing."""
    batch = begin(engine, options, seed, indices)
    for step in engine.steps:
        batch = advance(batch, step, provider, options)
    batch = go_on(batch, engine, provider, options)
    return finish(batch, engine, options)


def notes_of(candidate: Candidate, engine: Engine, **more: Any) -> dict:
    """`Sentence.notes` of a finished candidate: engine, bucket, attempt, the filters' results, and `more`.

    Every engine adds `regions`, where it has any: a list of {"label", "box", "score"}, one per subject.
    """
    filter_results = [dataclasses.asdict(result) for result in candidate.filter_results]
    made = {"engine": f"{engine.name} {engine.version}", "bucket": candidate.bucket, "attempt": candidate.attempt}
    return made | {"verdicts": filter_results} | more


# ---- for steps ----


def each(run: Callable[[D, Any], D]) -> Run:
    """A step that calls no stage: `run(candidate, options)` of every candidate."""
    return lambda candidates, provider, options: [run(candidate, options) for candidate in candidates]


def only(field: str, value: str, run: Run) -> Run:
    """A step on the candidates whose field has this value; the others stay as they are."""

    def step(candidates: list[Candidate], provider: Provider, options: Any) -> list[Candidate]:
        own = [candidate for candidate in candidates if getattr(candidate, field) == value]
        after = iter(run(own, provider, options) if own else ())
        return [next(after) if getattr(candidate, field) == value else candidate for candidate in candidates]

    return step


def map_answers(candidates: Sequence[D], step: str, answers: Sequence[Any], then: Callable[[D, Any], D]) -> list[D]:
    """`then(candidate, answer)` of every candidate; one whose answer is an `ItemError` is dropped."""
    return [
        candidate.replace(dropped=(step, answer.reason)) if isinstance(answer, ItemError) else then(candidate, answer)
        for candidate, answer in zip(candidates, answers, strict=True)
    ]


def set_answers(candidates: Sequence[D], step: str, field: str, answers: Sequence[Any]) -> list[D]:
    """Every candidate with its answer in a field; one whose answer is an `ItemError` is dropped."""
    return map_answers(candidates, step, answers, lambda candidate, answer: candidate.replace(**{field: answer}))


def load_source(candidates: Sequence[D], step: str, field: str, get: Callable[[D], Any]) -> list[D]:
    """Every candidate with `get(candidate)`, raw material, in a field; dropped if the material is unusable.

    load_source(candidates, "photo", "image", lambda c: provider.sources.photo(c.seed, c.seed_for("photo")))
    """

    def piece(candidate: D) -> Any:
        try:
            return get(candidate)
        except ItemError as fault:
            return ItemError(str(fault))

    return set_answers(candidates, step, field, [piece(candidate) for candidate in candidates])


def group_answers(answers: Sequence[Any], sizes: Sequence[int]) -> list[list[Any] | ItemError]:
    """Splits a flat list of answers into groups of `sizes[i]`; a group with an `ItemError` in it becomes that error.

    For stages that take single items where a candidate has several.
    """
    flat, groups = iter(answers), []
    for size in sizes:
        group = [next(flat) for _ in range(size)]
        groups.append(next((answer for answer in group if isinstance(answer, ItemError)), group))
    return groups


# ---- for sentences ----


def arranged(
    prompt: str, images: Sequence[Image], rng: np.random.Generator, image_first: float | int
) -> tuple[Span, ...]:
    """Prompt and images as spans: images first with probability `image_first`, else within the sentence."""
    return ARRANGEMENTS["image_first" if rng.random() < image_first else "in_sentence"](prompt, images)


def region_notes(regions: Iterable[Region]) -> list[dict]:
    """Regions in the form of `Sentence.notes`."""
    return [{"label": region.label, "box": list(region.box), "score": region.score} for region in regions]
