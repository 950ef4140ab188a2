"""Edits of rendered scenes: a source image, an instruction for one change, and the image with that change.

    [image 1] "put the " [image 2] " robot left of the tree in <image 1>."  Plan  Target

The image to edit has the role "source" and shows no numbered subject; references, numbered from 2, show the added
subject alone, from another view, and it is subject 1 of the plan. The truth, the plan and the thought are those of the
scene after the edit, rendered again. Everything is exact, so no stage of a provider is called.
Read next: `macro/scenes/edits.py`, `macro/scenes/language/edit_instructions.py`, `core.py`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from macro.engines.core import Candidate, Engine, Step, arranged, each, notes_of, region_notes
from macro.engines.ground_truth import box_of, grid_of
from macro.engines.material.types import EngineImage
from macro.engines.provider import Provider, Region
from macro.scenes.edits import OPERATIONS, Edit, propose
from macro.scenes.graph import Scene
from macro.scenes.language import captions, chain_of_thought, edit_instructions, questions
from macro.scenes.layout import layout_sampler
from macro.scenes.render.batches import render_images, render_with_truth
from macro.sentence.plan import Plan
from macro.sentence.spans import MAX_REFERENCES, Image, Sentence, Target, Truth
from macro.utils.errors import UserError

_SCENES = 6  # drawn at most, until one has room for the edit
_LEVELS = 12  # of 255: a smaller difference of a pixel is not visible


@dataclass(frozen=True)
class Options:
    """How edits are made.

    Attributes:
        size, reference_size: side of source and target, and of the references, pixels.
        weights: of each of `macro.scenes.edits.OPERATIONS` (add, remove, replace, move, recolour).
        counts: how many subjects the source may have, each equally likely where the operation allows it.
        rays: samples per pixel, 1..4.
        image_first: share of samples in the image-first arrangement; the others are in-sentence.
        views: how many references an added subject has, each equally likely.
        min_area: least visible share of the image for every subject, before and after.
        min_change: least share of the image's pixels that must change.
        K, region: the layout rule's switches (`annotate.layout`).
    """

    size: int = 128
    reference_size: int = 64
    weights: tuple[int | float, ...] = (1, 1, 1, 1, 1)
    counts: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    rays: int = 4
    image_first: float = 0.25
    views: tuple[int, ...] = (1,)
    min_area: float = 0.008
    min_change: float = 0.008
    K: str = "overlap"
    region: str = "mask"

    def __post_init__(self):
        if len(self.weights) != len(OPERATIONS) or min(self.weights) < 0 or not sum(self.weights):
            raise UserError(f"edit options: weights must be {len(OPERATIONS)} numbers, for {', '.join(OPERATIONS)}")
        if not self.counts or not all(1 <= count <= 12 for count in self.counts):
            raise UserError("edit options: counts must be numbers of subjects, 1 to 12")
        for operation, weight in zip(OPERATIONS, self.weights, strict=True):
            if weight and not _counts(operation, self):
                raise UserError(f"edit options: counts {self.counts} leave none for {operation!r}; give it weight 0")
        if not self.views or not all(1 <= views < MAX_REFERENCES for views in self.views):
            raise UserError(f"edit options: views must be numbers of references, 1 to {MAX_REFERENCES - 1}")


@dataclass(frozen=True, eq=False)
class EditCandidate(Candidate):
    """A candidate with its edit, both images and their truths, the added subject's references, and the text."""

    operation: str = ""
    edit: Edit | None = None
    source: EngineImage | None = None
    target: EngineImage | None = None
    before: Truth | None = None
    after: Truth | None = None
    prompt: str | None = None
    references: tuple[EngineImage, ...] = ()


def _counts(operation: str, options: Options) -> list[int]:
    """Numbers of subjects that a source of this operation may have: remove and move need two, add at most 11."""
    least, most = (2 if operation in ("remove", "move") else 1), (11 if operation == "add" else 12)
    return [count for count in options.counts if least <= count <= most]


def _start(seed: int, index: int, attempt: int, options: Options) -> EditCandidate:
    # The operation is the same for every attempt: rejecting the hard ones must not bias the mixture.
    first = EditCandidate(seed, index, 0, "edit", "")
    weights = np.array(options.weights) / sum(options.weights)
    operation = OPERATIONS[int(first.rng("operation").choice(len(OPERATIONS), p=weights))]
    return first.replace(attempt=attempt, bucket=operation, operation=operation)


def _propose(candidate: EditCandidate, options: Options) -> EditCandidate:
    """A scene, and an edit that it has room for."""
    # Like the operation, the number of subjects is drawn once for all attempts.
    count = int(candidate.replace(attempt=0).rng("count").choice(_counts(candidate.operation, options)))
    rng = candidate.rng("scene")
    for _ in range(_SCENES):
        scene = captions.in_order_of_mention(layout_sampler.sample_scene(rng, count), rng)
        edit = propose(scene, candidate.operation, rng)
        if edit is not None:
            return candidate.replace(edit=edit)
    return candidate.replace(dropped=("propose", f"no scene of {count} had room to {candidate.operation}"))


def _draw(candidates: list[EditCandidate], provider: Provider | None, options: Options) -> list[EditCandidate]:
    """Renders both images and their ground truth."""
    scenes = [scene for candidate in candidates for scene in (candidate.edit.before, candidate.edit.after)]
    drawn = render_with_truth(scenes, options.size, options.size, options.rays)
    out = []
    for candidate in candidates:
        (source, before), (target, after) = next(drawn), next(drawn)
        source, target = EngineImage(source, candidate.edit.before), EngineImage(target, candidate.edit.after)
        out.append(candidate.replace(source=source, before=before, target=target, after=after))
    return out


def _show(candidate: EditCandidate, options: Options) -> EditCandidate:
    """Drops a candidate in which a subject is too small or has no cell, or the edit changes too little."""
    least = min(float(truth.masks.mean((1, 2)).min()) for truth in (candidate.before, candidate.after))
    candidate = candidate.check("area", least >= options.min_area, least, "somebody shows too little")
    if candidate.dropped:
        return candidate
    lost = grid_of(candidate.after, options)[1]
    candidate = candidate.check("cells", not lost, float(lost), "somebody has no cell of the layout")
    if candidate.dropped:
        return candidate
    changed = float((np.abs(candidate.source.pixels.astype(int) - candidate.target.pixels).max(-1) > _LEVELS).mean())
    return candidate.check("change", changed >= options.min_change, changed, "hardly anything changes")


def _say(candidate: EditCandidate, options: Options) -> EditCandidate:
    """The instruction; drops a candidate for which no unambiguous one exists."""
    numbers = range(2, 2 + _views(candidate, options))
    rng = candidate.rng("words")
    said = edit_instructions.instruction(candidate.edit, candidate.before, candidate.after, rng, numbers)
    return candidate.replace(prompt=said).check("words", said is not None, None, "no words would be clear and true")


def _views(candidate: EditCandidate, options: Options) -> int:
    """Number of references: 0 if no subject is added."""
    return int(candidate.rng("views").choice(options.views)) if candidate.operation in ("add", "replace") else 0


def _refer(candidates: list[EditCandidate], provider: Provider | None, options: Options) -> list[EditCandidate]:
    """Images of the added subject alone, from other views and in other light."""
    scenes = [_alone(candidate, options) for candidate in candidates]
    every = [scene for several in scenes for scene in several]
    images = iter(render_images(every, options.reference_size, options.rays))
    return [
        candidate.replace(references=tuple(EngineImage(next(images), scene) for scene in several))
        for candidate, several in zip(candidates, scenes, strict=True)
    ]


def _alone(candidate: EditCandidate, options: Options) -> list[Scene]:
    rng = candidate.rng("references")
    return [layout_sampler.reference_scene(candidate.edit.after, 0, rng) for _ in range(_views(candidate, options))]


def _finish(candidate: EditCandidate, options: Options) -> Sentence:
    rng = candidate.rng("sentence")
    edit, truth = candidate.edit, candidate.after
    images = [
        Image(candidate.source.pixels, role="source"),
        *(Image(each.pixels, subject=1) for each in candidate.references),
    ]
    spans = arranged(candidate.prompt, images, rng, options.image_first)
    cot = edit_instructions.thought(edit, candidate.before, truth) + chain_of_thought.cot(edit.after, truth, rng)
    plan = Plan(cot, grid_of(truth, options)[0])
    truth = replace(truth, questions=questions.ask(truth, rng))
    regions = region_notes(Region(kind, box_of(truth, n)) for n, kind in enumerate(truth.kinds))
    about: dict[str, Any] = {"operation": edit.operation, "subject": edit.subject, "result": edit.result}
    notes = notes_of(candidate, ENGINE, edit=about | {"colour": edit.colour}, regions=regions)
    return Sentence((*spans, plan, Target(candidate.target.pixels)), "edit", candidate.index, truth, notes)


ENGINE = Engine(
    name="edit",
    version="1.1.0",
    options=Options,
    start=_start,
    steps=(
        Step("propose", each(_propose)), Step("draw", _draw), Step("show", each(_show)), Step("say", each(_say)),
        Step("refer", _refer),
    ),
    finish=_finish,
    max_attempts=8,
    needs_provider=False,
)  # fmt: skip
