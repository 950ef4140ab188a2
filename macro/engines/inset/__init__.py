"""INSET's data engine (arXiv 2605.12305): pictures are words of the sentence, cut from what it describes.

    made = drafts.make(inset.ENGINE, stages, inset.Options(), seed=0, indices=range(8))

"a [picture 1] striped red robot stands left of a [picture 2] teal tree": the target is a photo, or the later of two
frames of a clip, and its references are cut out of the photo, or of the earlier frame. Drafts of both branches go
through the same list of steps, each of which takes those that it is for.
Read next: `parts.py` (options, what is fit to be a reference), `images.py`, `video.py`.
"""

from dataclasses import replace

import numpy as np

from macro.engines.drafts import Engine, Step, fill, notes_of
from macro.engines.inset import images, video
from macro.engines.inset.parts import (
    IMAGE,
    VIDEO,
    InsetDraft,
    Options,
    choose_sizes,
    cut,
    enough,
    only_in,
    segment,
)
from macro.engines.known import narrowed_truth, subject_at, truths
from macro.engines.stages import Brief, Interleaved, Stages
from macro.scenes.ground_truth.annotate import layout
from macro.scenes.language import questions
from macro.sentence.formats import phrased, prompt_of
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Span, Target, Truth
from macro.utils.errors import UserError

__all__ = ["ENGINE", "Options"]


def start(seed: int, index: int, attempt: int, options: Options) -> InsetDraft:
    """The branch is that of the first attempt: trying again must not bend the mixture towards the easier one."""
    first = InsetDraft(seed, index, 0, "compose", IMAGE)
    return first.set(attempt=attempt, bucket=VIDEO if first.stream("branch").random() < options.video else IMAGE)


def check_phrases(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Whoever told it may have left things out, which leave; the others are numbered in the order of their mention.

    A phrase that is not in the caption, or a number that is no thing's, drops the draft.
    """
    del stages
    return [_checked(draft, options) for draft in drafts]


def _checked(draft: InsetDraft, options: Options) -> InsetDraft:
    try:
        spans = _spans(draft)
    except UserError as error:
        return draft.passes("phrases", False, reason=str(error))
    mentioned = [image.number for image in spans if isinstance(image, Image) and image.number is not None]
    numbers = {old: new for new, old in enumerate(mentioned, 1)}
    told = Interleaved(draft.told.caption, {phrase: numbers[n] for phrase, n in draft.told.phrases.items()})
    draft = draft.only([number - 1 for number in mentioned]).set(told=told)
    return enough(draft, "phrases", len(mentioned), options)


def _spans(draft: InsetDraft) -> tuple[Span, ...]:
    pictures = [Image(picture.pixels, subject=n) for n, picture in enumerate(draft.references, 1)]
    return phrased(draft.told.caption, draft.told.phrases, pictures)


def think(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """The chain of thought, where a plan is asked for."""
    if not options.plan:
        return drafts
    briefs = [Brief(d.target, d.placed, d.references, d.number("think")) for d in drafts]
    return fill(drafts, "think", "cot", stages.think(briefs, [prompt_of(Sentence(_spans(d))) for d in drafts]))


def finish(draft: InsetDraft, options: Options) -> Sentence:
    """Caption with pictures in it, plan if asked for, target; the truth where the target's scene is known."""
    plan = ()
    if options.plan:
        plan = (Plan(draft.cot, layout(_masks(draft))),)
    notes = notes_of(
        draft,
        ENGINE,
        regions=[{"label": r.label, "box": list(r.box), "score": r.score} for r in draft.placed],
        phrases=draft.told.phrases,
        judged=list(draft.judged),
    )
    if draft.bucket == IMAGE:
        notes |= {"caption": draft.caption, "descriptions": list(draft.descriptions)}
    else:
        notes |= {"seconds": list(draft.pair.seconds)}
    spans = (*_spans(draft), *plan, Target(draft.target.pixels))
    return Sentence(spans, draft.task, draft.index, _truth(draft), notes)


def _masks(draft: InsetDraft) -> np.ndarray:
    return np.stack([region.mask for region in draft.placed])


def _truth(draft: InsetDraft) -> Truth | None:
    """Of the subjects that references show, in their order; questions are about the whole picture."""
    if draft.target.scene is None:
        return None
    (truth,) = truths([draft.target])
    subjects = [subject_at(truth, region) for region in draft.placed]
    if None in subjects or len(set(subjects)) < len(subjects):
        return None
    return replace(narrowed_truth(truth, subjects), questions=questions.ask(truth, draft.stream("questions")))


ENGINE = Engine(
    name="inset",
    version="1.0.0",
    options=Options,
    start=start,
    steps=(
        Step("photo", only_in(IMAGE, images.photo)),
        Step("caption", only_in(IMAGE, images.caption)),
        Step("tag", only_in(IMAGE, images.tag)),
        Step("detect", only_in(IMAGE, images.detect)),
        Step("pair", only_in(VIDEO, video.pair)),
        Step("match", only_in(VIDEO, video.match)),
        Step("stillness", only_in(VIDEO, video.moving)),
        Step("changed", only_in(VIDEO, video.changing)),
        Step("sizes", choose_sizes),
        Step("segment", segment),
        Step("cut", cut),
        Step("describe", only_in(IMAGE, images.describe)),
        Step("merge", only_in(IMAGE, images.merge)),
        Step("narrate", only_in(VIDEO, video.narrate)),
        Step("phrases", check_phrases),
        Step("think", think),
    ),
    finish=finish,
)
