"""MACRO's data engine (arXiv 2603.25319): four tasks with one to ten references, in four buckets of their number.

Sample `index` belongs to one (task, bucket) pair (`mixture.py`); each task is a module of its own, with the same shape:

    start(seed, index, attempt, bucket, options) -> draft      STEPS: its steps      finish(draft, options) -> sentence

A task's steps run on its own drafts and leave the others as they are; its sentences' notes become part of the engine's.
Read next: `customization.py`, `illustration.py`, `spatial.py`, `temporal.py`.
"""

import functools
from types import ModuleType

from macro.engines.drafts import Draft, Engine, Step, notes_of
from macro.engines.macrodata import customization, illustration, spatial, temporal
from macro.engines.macrodata.geometry import view_overlap
from macro.engines.macrodata.mixture import pair_of
from macro.engines.macrodata.options import Options
from macro.engines.stages import Stages
from macro.sentence.spans import Sentence

__all__ = ["ENGINE", "Options", "view_overlap"]

TASKS: dict[str, ModuleType] = {
    "customization": customization, "illustration": illustration, "spatial": spatial, "temporal": temporal,
}  # fmt: skip


def start(seed: int, index: int, attempt: int, options: Options) -> Draft:
    """An empty draft of the task that sample `index` belongs to."""
    task, bucket = pair_of(index)
    return TASKS[task].start(seed, index, attempt, bucket, options)


def _on_own(task: str, step: Step, drafts: list[Draft], stages: Stages, options: Options) -> list[Draft]:
    """The step of a task on the drafts of that task; the others are passed on."""
    own = [draft for draft in drafts if draft.task == task]
    stepped = iter(step.run(own, stages, options) if own else ())
    return [next(stepped) if draft.task == task else draft for draft in drafts]


def finish(draft: Draft, options: Options) -> Sentence:
    """The sentence of its task, with the engine's notes and the task's own."""
    sentence = TASKS[draft.task].finish(draft, options)
    return sentence.replace(notes=notes_of(draft, ENGINE, **sentence.notes))


ENGINE = Engine(
    name="macrodata",
    version="1.0.0",
    options=Options,
    start=start,
    steps=tuple(
        Step(f"{task} {step.name}", functools.partial(_on_own, task, step))
        for task, module in TASKS.items()
        for step in module.STEPS
    ),
    finish=finish,
)
