"""How an engine runs: candidates go through named steps, and come out as sentences or with the reason why not.

    engine = music.ENGINE
    made = make(engine, procedural.provider(), options, seed=0, indices=range(8))
    made.samples, made.dead, made.counts

A candidate is everything known so far about sample (seed, index); steps ask stages (`provider.py`) and fill it in. One
that a filter drops, or whose stage had a fault, is written down as dead with its step and reason; its place is tried
again, with other random numbers, up to `engine.max_attempts` times. So sample `index` follows from (seed, index,
options) and the provider alone, whatever is made beside it. Steps see whole batches: that is what models like.
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
    """What a filter said: its name, whether the candidate passed, the value it looked at, and in words why."""

    filter: str
    kept: bool
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Candidate:
    """Sample (seed, index) on its way; engines add what they find out as fields of their own.

    Attributes:
        attempt: 0 at first; a candidate that was dropped starts anew with the next.
        task, bucket: what it will be a sample of: "compose", "1-3".
        filter_results: of all filters so far.
        dropped: (step, reason) once it is dead.
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
        """Random numbers for one purpose: separate streams keep one choice from moving the others."""
        return stream(self.seed, self.index, self.attempt, purpose)

    def replace(self, **changes) -> "Candidate":
        """A copy with other fields."""
        return dataclasses.replace(self, **changes)

    def check(self, name: str, kept: bool, value: float | None = None, reason: str = "") -> "Candidate":
        """A copy with a filter's verdict; dropped, with the reason, where that is no."""
        candidate = self.replace(filter_results=(*self.filter_results, FilterResult(name, bool(kept), value, reason)))
        return candidate if kept else candidate.replace(dropped=(name, reason))


D = TypeVar("D", bound=Candidate)
Run = Callable[[list[Any], Provider, Any], list[Any]]


@dataclass(frozen=True)
class Step:
    """A named step: `run(candidates, provider, options)` gives as many candidates back, in order, dropped ones too.

    `provider` is None for an engine that needs none.
    """

    name: str
    run: Run


@dataclass(frozen=True)
class Engine:
    """A data engine.

    Attributes:
        name: of its data set; version: changes whenever it makes anything else than before from the same input.
        options: the dataclass of its settings.
        start: (seed, index, attempt, options) -> an empty candidate.
        steps: in order.
        finish: (candidate, options) -> its sentence.
        needs_provider: whether its steps ask one.
        max_attempts: how often a place is tried before it stays empty.
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
    """Candidates on their way together: the places still open, what is done, what died, and what the filters said.

    `counts` holds (filter or step, "kept" or "dropped") -> number.
    """

    seed: int
    candidates: tuple[Candidate, ...]
    done: tuple[Candidate, ...] = ()
    dead: tuple[Rejection, ...] = ()
    counts: Counter = dataclasses.field(default_factory=Counter)


def begin(engine: Engine, options: Any, seed: int, indices: Iterable[int]) -> Batch:
    """First candidates of these places."""
    return Batch(seed, tuple(engine.start(seed, index, 0, options) for index in indices))


def advance(batch: Batch, step: Step, provider: Provider | None, options: Any) -> Batch:
    """All living candidates one step on."""
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
    """After the last step: survivors are done, the dead are written down, and their places start anew.

    The last attempt's dead leave their places empty.
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
    """What came of a batch: samples in the order of their indices, the dead, and the filters' counts."""

    samples: list[Sentence]
    dead: list[Rejection]
    counts: Counter


def finish(batch: Batch, engine: Engine, options: Any) -> EngineOutput:
    """The sentences of all that is done."""
    return EngineOutput([engine.finish(candidate, options) for candidate in batch.done], list(batch.dead), batch.counts)


def go_on(batch: Batch, engine: Engine, provider: Provider | None, options: Any) -> Batch:
    """After the last step of the first try: settles it, and makes all the others."""
    for _ in range(engine.max_attempts - 1):
        batch = settle(batch, engine, options)
        for step in engine.steps:
            batch = advance(batch, step, provider, options)
    return settle(batch, engine, options)


def make(engine: Engine, provider: Provider | None, options: Any, seed: int, indices: Iterable[int]) -> EngineOutput:
    """Samples `indices` of `seed`; places whose every attempt was dropped are missing."""
    batch = begin(engine, options, seed, indices)
    for step in engine.steps:
        batch = advance(batch, step, provider, options)
    batch = go_on(batch, engine, provider, options)
    return finish(batch, engine, options)


def notes_of(candidate: Candidate, engine: Engine, **more: Any) -> dict:
    """`Sentence.notes` of a finished candidate: engine, bucket, attempt, the filters' verdicts, and what it adds.

    Every engine adds `regions`, where it has any: a list of {"label", "box", "score"}, subject by subject.
    """
    filter_results = [dataclasses.asdict(result) for result in candidate.filter_results]
    made = {"engine": f"{engine.name} {engine.version}", "bucket": candidate.bucket, "attempt": candidate.attempt}
    return made | {"verdicts": filter_results} | more


# ---- for steps ----


def each(run: Callable[[D, Any], D]) -> Run:
    """A step that asks no stage: `run(candidate, options)` of every candidate."""
    return lambda candidates, provider, options: [run(candidate, options) for candidate in candidates]


def only(field: str, value: str, run: Run) -> Run:
    """A step on the candidates with this value in a field; the others stay as they are."""

    def step(candidates: list[Candidate], provider: Provider, options: Any) -> list[Candidate]:
        own = [candidate for candidate in candidates if getattr(candidate, field) == value]
        after = iter(run(own, provider, options) if own else ())
        return [next(after) if getattr(candidate, field) == value else candidate for candidate in candidates]

    return step


def map_answers(candidates: Sequence[D], step: str, answers: Sequence[Any], then: Callable[[D, Any], D]) -> list[D]:
    """`then(candidate, answer)` of every candidate; one whose answer is a `ItemError` is dropped."""
    return [
        candidate.replace(dropped=(step, answer.reason)) if isinstance(answer, ItemError) else then(candidate, answer)
        for candidate, answer in zip(candidates, answers, strict=True)
    ]


def set_answers(candidates: Sequence[D], step: str, field: str, answers: Sequence[Any]) -> list[D]:
    """Every candidate with its answer in a field; one whose answer is a `ItemError` is dropped."""
    return map_answers(candidates, step, answers, lambda candidate, answer: candidate.replace(**{field: answer}))


def load_source(candidates: Sequence[D], step: str, field: str, get: Callable[[D], Any]) -> list[D]:
    """Every candidate with `get(candidate)`, raw material, in a field; one whose material is unusable is dropped.

    load_source(candidates, "photo", "image", lambda c: provider.sources.photo(c.seed, c.seed_for("photo")))
    """

    def piece(candidate: D) -> Any:
        try:
            return get(candidate)
        except ItemError as fault:
            return ItemError(str(fault))

    return set_answers(candidates, step, field, [piece(candidate) for candidate in candidates])


def group_answers(answers: Sequence[Any], sizes: Sequence[int]) -> list[list[Any] | ItemError]:
    """A flat list of answers, `sizes[i]` of them to group i; a group with a fault in it is that fault.

    For stages that answer thing by thing where a candidate has several.
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
    """Prompt and images, in a share `image_first` of the draws with the images first, else in the sentence."""
    return ARRANGEMENTS["image_first" if rng.random() < image_first else "in_sentence"](prompt, images)


def region_notes(regions: Iterable[Region]) -> list[dict]:
    """Regions as `Sentence.notes` hold them."""
    return [{"label": region.label, "box": list(region.box), "score": region.score} for region in regions]
