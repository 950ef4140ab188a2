"""MACRO's data engine (arXiv 2603.25319): four tasks with one to ten references, in four buckets of their number.

Sample `index` belongs to one (task, bucket) pair (`mixture.py`); each task is a module with the same interface:

    start(seed, index, attempt, bucket, options) -> candidate  STEPS: its steps   finish(candidate, options) -> sentence

A task's steps run on its own candidates and leave the others as they are.
Read next: `customization.py`, `illustration.py`, `spatial.py`, `temporal.py`.
"""

from types import ModuleType

from macro.engines.core import Candidate, Engine, Step, notes_of, only
from macro.engines.macrodata import customization, illustration, spatial, temporal
from macro.engines.macrodata.geometry import view_overlap
from macro.engines.macrodata.mixture import pair_of
from macro.engines.macrodata.options import Options
from macro.sentence.spans import Sentence

__all__ = ["ENGINE", "Options", "view_overlap"]

TASKS: dict[str, ModuleType] = {
    "customization": customization, "illustration": illustration, "spatial": spatial, "temporal": temporal,
}  # fmt: skip


def start(seed: int, index: int, attempt: int, options: Options) -> Candidate:
    """An empty candidate of the task to which sample `index` belongs."""
    task, bucket = pair_of(index)
    return TASKS[task].start(seed, index, attempt, bucket, options)


def finish(candidate: Candidate, options: Options) -> Sentence:
    """The sentence of the candidate's task, with the engine's and the task's notes."""
    sentence = TASKS[candidate.task].finish(candidate, options)
    return sentence.replace(notes=notes_of(candidate, ENGINE, **sentence.notes))


ENGINE = Engine(
    name="macrodata",
    version="1.1.0",
    options=Options,
    start=start,
    steps=tuple(
        Step(f"{task} {step.name}", only("task", task, step.run))
        for task, module in TASKS.items()
        for step in module.STEPS
    ),
    finish=finish,
)
