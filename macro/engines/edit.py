"""Edits of rendered scenes: a picture, a sentence that asks for one change, the picture with that change.

    [picture 1] "put the " [picture 2] " robot left of the tree in <image 1>."  Plan  Target

The picture to edit has the role "source" and shows no numbered subject; references, numbered from 2, show the newcomer
alone, from another view, and it is subject 1 of the plan. The truth, the plan and the thought are those of the scene
after the edit, rendered again. This is exact, so all that it needs of a provider is nothing: the stages go unused.
Read next: `macro/scenes/edits.py`, `macro/scenes/language/edit_instructions.py`, `drafts.py`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int8

from macro.engines.drafts import Draft, Engine, Step, fill, notes_of
from macro.engines.sources import Picture
from macro.engines.stages import Fault, Stages
from macro.scenes.edits import OPERATIONS, Edit, propose
from macro.scenes.graph import Scene
from macro.scenes.ground_truth import annotate
from macro.scenes.language import captions, chain_of_thought, edit_instructions, questions
from macro.scenes.layout import layout_sampler
from macro.scenes.render.batches import render_images, render_with_truth
from macro.sentence.formats import ARRANGEMENTS
from macro.sentence.plan import Plan
from macro.sentence.spans import MAX_REFERENCES, Image, Sentence, Target, Truth
from macro.utils.errors import UserError

_SCENES = 6  # drawn until one has room for the edit
_LEVELS = 12  # of 255: a pixel that differs by less has not changed to the eye


@dataclass(frozen=True)
class Options:
    """How edits are made.

    Attributes:
        size, reference_size: side of source and target, and of the references, pixels.
        weights: how often each of `macro.scenes.edits.OPERATIONS` (add, remove, replace, move, recolour) comes up.
        counts: how many subjects the source may have, each equally likely as far as the operation allows it.
        rays: samples per pixel, 1..4.
        image_first: share of samples in the image-first arrangement; the others are in-sentence.
        views: how many references a newcomer has, each equally likely.
        min_area: visible share of the picture that every subject must reach before and after.
        min_change: share of the picture's pixels that must have changed.
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
class EditDraft(Draft):
    """A draft with its edit, both pictures and their truths, the newcomer's references, and the words."""

    operation: str = ""
    edit: Edit | None = None
    source: Picture | None = None
    target: Picture | None = None
    before: Truth | None = None
    after: Truth | None = None
    prompt: str | None = None
    references: tuple[Picture, ...] = ()


def _counts(operation: str, options: Options) -> list[int]:
    """Numbers of subjects that a source of this operation may have: a mover needs company, 12 leave no room."""
    least, most = (2 if operation in ("remove", "move") else 1), (11 if operation == "add" else 12)
    return [count for count in options.counts if least <= count <= most]


def _start(seed: int, index: int, attempt: int, options: Options) -> EditDraft:
    # The operation is the same for every attempt: dropping the hard ones must not bend the mixture.
    first = EditDraft(seed, index, 0, "edit", "")
    weights = np.array(options.weights) / sum(options.weights)
    operation = OPERATIONS[int(first.stream("operation").choice(len(OPERATIONS), p=weights))]
    return first.set(attempt=attempt, bucket=operation, operation=operation)


def _propose(drafts: list[EditDraft], stages: Stages | None, options: Options) -> list[EditDraft]:
    """A scene, and an edit that it has room for."""
    return fill(drafts, "propose", "edit", [_proposal(draft, options) for draft in drafts])


def _proposal(draft: EditDraft, options: Options) -> Edit | Fault:
    # As the operation, the number of subjects is drawn once and for all attempts.
    count = int(draft.set(attempt=0).stream("count").choice(_counts(draft.operation, options)))
    rng = draft.stream("scene")
    for _ in range(_SCENES):
        scene = captions.in_order_of_mention(layout_sampler.sample_scene(rng, count), rng)
        edit = propose(scene, draft.operation, rng)
        if edit is not None:
            return edit
    return Fault(f"no scene of {count} had room to {draft.operation}")


def _draw(drafts: list[EditDraft], stages: Stages | None, options: Options) -> list[EditDraft]:
    """Both pictures and what is so in them."""
    scenes = [scene for draft in drafts for scene in (draft.edit.before, draft.edit.after)]
    drawn = render_with_truth(scenes, options.size, options.size, options.rays)
    out = []
    for draft in drafts:
        (source, before), (target, after) = next(drawn), next(drawn)
        source, target = Picture(source, draft.edit.before), Picture(target, draft.edit.after)
        out.append(draft.set(source=source, before=before, target=target, after=after))
    return out


def _show(drafts: list[EditDraft], stages: Stages | None, options: Options) -> list[EditDraft]:
    """Drops drafts in which somebody shows too little, has no cell, or the edit changes too little."""
    return [_shown(draft, options) for draft in drafts]


def _shown(draft: EditDraft, options: Options) -> EditDraft:
    least = min(float(truth.masks.mean((1, 2)).min()) for truth in (draft.before, draft.after))
    draft = draft.passes("area", least >= options.min_area, least, "somebody shows too little")
    if draft.dropped:
        return draft
    lost = len(draft.after.kinds) - len(np.setdiff1d(_layout(draft.after, options), [0]))
    draft = draft.passes("cells", not lost, float(lost), "somebody has no cell of the layout")
    if draft.dropped:
        return draft
    changed = float((np.abs(draft.source.pixels.astype(int) - draft.target.pixels).max(-1) > _LEVELS).mean())
    return draft.passes("change", changed >= options.min_change, changed, "hardly anything changes")


def _say(drafts: list[EditDraft], stages: Stages | None, options: Options) -> list[EditDraft]:
    """The instruction; drops drafts in which nobody could say clearly what is meant."""
    out = []
    for draft in drafts:
        numbers = range(2, 2 + _views(draft, options))
        said = edit_instructions.instruction(draft.edit, draft.before, draft.after, draft.stream("words"), numbers)
        out.append(draft.set(prompt=said).passes("words", said is not None, None, "no words would be clear and true"))
    return out


def _views(draft: EditDraft, options: Options) -> int:
    """How many references there are: none where nobody is new."""
    return int(draft.stream("views").choice(options.views)) if draft.operation in ("add", "replace") else 0


def _refer(drafts: list[EditDraft], stages: Stages | None, options: Options) -> list[EditDraft]:
    """Pictures of the newcomers alone, from other views and in other light."""
    scenes = [_alone(draft, options) for draft in drafts]
    every = [scene for several in scenes for scene in several]
    pictures = iter(render_images(every, options.reference_size, options.rays))
    return [
        draft.set(references=tuple(Picture(next(pictures), scene) for scene in several))
        for draft, several in zip(drafts, scenes, strict=True)
    ]


def _alone(draft: EditDraft, options: Options) -> list[Scene]:
    rng = draft.stream("references")
    return [layout_sampler.reference_scene(draft.edit.after, 0, rng) for _ in range(_views(draft, options))]


def _layout(truth: Truth, options: Options) -> Int8[np.ndarray, "8 8"]:
    return annotate.layout(truth.masks, truth.boxes, options.K, options.region)


def _finish(draft: EditDraft, options: Options) -> Sentence:
    rng = draft.stream("sentence")
    edit, truth = draft.edit, draft.after
    images = [Image(draft.source.pixels, role="source"), *(Image(each.pixels, subject=1) for each in draft.references)]
    arrangement = "image_first" if rng.random() < options.image_first else "in_sentence"
    cot = edit_instructions.thought(edit, draft.before, truth) + chain_of_thought.cot(edit.after, truth, rng)
    plan = Plan(cot, _layout(truth, options))
    truth = replace(truth, questions=questions.ask(truth, rng))
    regions = [
        {"label": kind, "box": box, "score": 1.0} for kind, box in zip(truth.kinds, truth.boxes.tolist(), strict=True)
    ]
    about: dict[str, Any] = {"operation": edit.operation, "subject": edit.subject, "result": edit.result}
    notes = notes_of(draft, ENGINE, edit=about | {"colour": edit.colour}, regions=regions)
    spans = ARRANGEMENTS[arrangement](draft.prompt, images)
    return Sentence((*spans, plan, Target(draft.target.pixels)), "edit", draft.index, truth, notes)


ENGINE = Engine(
    name="edit",
    version="1.0.0",
    options=Options,
    start=_start,
    steps=(
        Step("propose", _propose),
        Step("draw", _draw),
        Step("show", _show),
        Step("say", _say),
        Step("refer", _refer),
    ),
    finish=_finish,
    tries=8,
)
