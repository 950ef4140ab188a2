"""How an engine runs: drafts go through named steps, and come out as sentences or with the reason why not.

    engine = music.ENGINE
    made = make(engine, procedural.stages(), options, seed=0, indices=range(8))
    made.samples, made.dead, made.counts

A draft is everything known so far about sample (seed, index); steps ask stages (`stages.py`) and fill it in. One
that a filter drops, or whose stage had a fault, is written down as dead with its step and reason; its place is tried
again, with other random numbers, up to `engine.tries` times. So sample `index` follows from (seed, index, options)
and the provider alone, whatever is made beside it. Steps see whole batches: that is what models like.
Read next: `music.py`, `inset.py`, `macrodata.py` (the engines); `data/build.py` (the command line).
"""

import dataclasses
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from macro.engines.sources import SourceFault
from macro.engines.stages import Fault, Stages
from macro.sentence.spans import Sentence


@dataclass(frozen=True)
class Verdict:
    """What a filter said: its name, whether the draft passed, the value it looked at, and in words why."""

    filter: str
    kept: bool
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Draft:
    """Sample (seed, index) on its way; engines add what they find out as fields of their own.

    Attributes:
        attempt: 0 at first; a draft that was dropped starts anew with the next.
        task, bucket: what it will be a sample of: "compose", "1-3".
        verdicts: of all filters so far.
        dropped: (step, reason) once it is dead.
    """

    seed: int
    index: int
    attempt: int
    task: str
    bucket: str
    verdicts: tuple[Verdict, ...] = ()
    dropped: tuple[str, str] | None = None

    def number(self, purpose: str) -> int:
        """A number below 2**31 for one purpose, such as a model's seed."""
        return int(self.stream(purpose).integers(2**31))

    def stream(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose: separate streams keep one choice from moving the others."""
        return np.random.default_rng([self.seed, self.index, self.attempt, zlib.crc32(purpose.encode())])

    def set(self, **changes) -> "Draft":
        """A copy with other fields."""
        return dataclasses.replace(self, **changes)

    def passes(self, name: str, kept: bool, value: float | None = None, reason: str = "") -> "Draft":
        """A copy with a filter's verdict; dropped, with the reason, where that is no."""
        draft = self.set(verdicts=(*self.verdicts, Verdict(name, bool(kept), value, reason)))
        return draft if kept else draft.set(dropped=(name, reason))


D = TypeVar("D", bound=Draft)


@dataclass(frozen=True)
class Step:
    """A named step: `run(drafts, stages, options)` gives as many drafts back, in order, dropped ones among them.

    `stages` is None for an engine that needs none.
    """

    name: str
    run: Callable[[list[Any], Stages, Any], list[Any]]


@dataclass(frozen=True)
class Engine:
    """A data engine.

    Attributes:
        name: of its data set; version: changes whenever it makes anything else than before from the same input.
        options: the dataclass of its settings.
        start: (seed, index, attempt, options) -> an empty draft.
        steps: in order.
        finish: (draft, options) -> its sentence.
        tries: how often a place is tried before it stays empty.
    """

    name: str
    version: str
    options: type
    start: Callable[[int, int, int, Any], Draft]
    steps: tuple[Step, ...]
    finish: Callable[[Any, Any], Sentence]
    tries: int = 4


@dataclass(frozen=True)
class Dead:
    """A dropped draft, for the dead-letter file."""

    index: int
    attempt: int
    task: str
    bucket: str
    step: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Drafts on their way together: the places still open, what is done, what died, and what the filters said.

    `counts` holds (filter or step, "kept" or "dropped") -> number.
    """

    seed: int
    drafts: tuple[Draft, ...]
    done: tuple[Draft, ...] = ()
    dead: tuple[Dead, ...] = ()
    counts: Counter = dataclasses.field(default_factory=Counter)


def begin(engine: Engine, options: Any, seed: int, indices: Iterable[int]) -> Batch:
    """First drafts of these places."""
    return Batch(seed, tuple(engine.start(seed, index, 0, options) for index in indices))


def advance(batch: Batch, step: Step, stages: Stages | None, options: Any) -> Batch:
    """All living drafts one step on."""
    living = [draft for draft in batch.drafts if draft.dropped is None]
    if not living:
        return batch
    stepped = step.run(living, stages, options)
    if [draft.index for draft in stepped] != [draft.index for draft in living]:
        raise ValueError(f"step {step.name}: gave back other drafts than it got")
    after = iter(stepped)
    return dataclasses.replace(
        batch, drafts=tuple(next(after) if draft.dropped is None else draft for draft in batch.drafts)
    )


def settle(batch: Batch, engine: Engine, options: Any) -> Batch:
    """After the last step: survivors are done, the dead are written down, and their places start anew.

    The last attempt's dead leave their places empty.
    """
    done, dead, again, counts = list(batch.done), list(batch.dead), [], Counter(batch.counts)
    for draft in batch.drafts:
        for verdict in draft.verdicts:
            counts[verdict.filter, "kept" if verdict.kept else "dropped"] += 1
        if draft.dropped is None:
            done.append(draft)
            continue
        step, reason = draft.dropped
        if not any(verdict.filter == step and not verdict.kept for verdict in draft.verdicts):
            counts[step, "dropped"] += 1
        dead.append(Dead(draft.index, draft.attempt, draft.task, draft.bucket, step, reason))
        if draft.attempt + 1 < engine.tries:
            again.append(engine.start(batch.seed, draft.index, draft.attempt + 1, options))
    done.sort(key=lambda draft: draft.index)
    return Batch(batch.seed, tuple(again), tuple(done), tuple(dead), counts)


@dataclass(frozen=True)
class Made:
    """What came of a batch: samples in the order of their indices, the dead, and the filters' counts."""

    samples: list[Sentence]
    dead: list[Dead]
    counts: Counter


def finish(batch: Batch, engine: Engine, options: Any) -> Made:
    """The sentences of all that is done."""
    return Made([engine.finish(draft, options) for draft in batch.done], list(batch.dead), batch.counts)


def go_on(batch: Batch, engine: Engine, stages: Stages | None, options: Any) -> Batch:
    """After the last step of the first try: settles it, and makes all the others."""
    for _ in range(engine.tries - 1):
        batch = settle(batch, engine, options)
        for step in engine.steps:
            batch = advance(batch, step, stages, options)
    return settle(batch, engine, options)


def make(engine: Engine, stages: Stages | None, options: Any, seed: int, indices: Iterable[int]) -> Made:
    """Samples `indices` of `seed`; places whose every attempt was dropped are missing."""
    batch = begin(engine, options, seed, indices)
    for step in engine.steps:
        batch = advance(batch, step, stages, options)
    batch = go_on(batch, engine, stages, options)
    return finish(batch, engine, options)


def notes_of(draft: Draft, engine: Engine, **more: Any) -> dict:
    """`Sentence.notes` of a finished draft: engine, bucket, attempt, the filters' verdicts, and what it adds.

    Every engine adds `regions`, where it has any: a list of {"label", "box", "score"}, subject by subject.
    """
    verdicts = [dataclasses.asdict(verdict) for verdict in draft.verdicts]
    made = {"engine": f"{engine.name} {engine.version}", "bucket": draft.bucket, "attempt": draft.attempt}
    return made | {"verdicts": verdicts} | more


# ---- for steps ----


def use(drafts: Sequence[D], step: str, answers: Sequence[Any], then: Callable[[D, Any], D]) -> list[D]:
    """`then(draft, answer)` of every draft; one whose answer is a `Fault` is dropped."""
    return [
        draft.set(dropped=(step, answer.reason)) if isinstance(answer, Fault) else then(draft, answer)
        for draft, answer in zip(drafts, answers, strict=True)
    ]


def fill(drafts: Sequence[D], step: str, field: str, answers: Sequence[Any]) -> list[D]:
    """Every draft with its answer in a field; one whose answer is a `Fault` is dropped."""
    return use(drafts, step, answers, lambda draft, answer: draft.set(**{field: answer}))


def gather(drafts: Sequence[D], step: str, field: str, get: Callable[[D], Any]) -> list[D]:
    """Every draft with `get(draft)`, a piece of raw material, in a field; one whose piece is unusable is dropped.

        gather(drafts, "photo", "picture", lambda draft: stages.sources.photo(draft.seed, draft.number("photo")))
    """

    def piece(draft: D) -> Any:
        try:
            return get(draft)
        except SourceFault as fault:
            return Fault(str(fault))

    return fill(drafts, step, field, [piece(draft) for draft in drafts])


def regroup(answers: Sequence[Any], sizes: Sequence[int]) -> list[list[Any] | Fault]:
    """A flat list of answers, `sizes[i]` of them to group i; a group with a fault in it is that fault.

    For stages that answer thing by thing where a draft has several.
    """
    flat, groups = iter(answers), []
    for size in sizes:
        group = [next(flat) for _ in range(size)]
        groups.append(next((answer for answer in group if isinstance(answer, Fault)), group))
    return groups
