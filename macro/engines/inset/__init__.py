"""INSET's data engine (arXiv 2605.12305): images stand in the sentence as words, cut from what it describes.

    made = core.make(inset.ENGINE, provider, inset.Options(), seed=0, indices=range(8))

"a [image 1] striped red robot stands left of a [image 2] teal tree": the target is a photo, or the later of two
frames of a clip; its references are cut out of the photo, or of the earlier frame. Candidates of both branches go
through the same list of steps, and each step runs on the branch it is for.
Read next: `regions.py` (options, which regions may be references), `images.py`, `video.py`.
"""

from dataclasses import replace

import numpy as np

from macro.engines.core import Engine, Step, each, notes_of, only, region_notes, set_answers
from macro.engines.ground_truth import known_truth, subject_at
from macro.engines.inset import images, video
from macro.engines.inset.regions import (
    IMAGE,
    VIDEO,
    Batch,
    InsetCandidate,
    Options,
    choose_sizes,
    cut,
    enough,
    segment,
)  # fmt: skip
from macro.engines.provider import InterleavedCaption, PromptRequest, Provider
from macro.scenes.ground_truth.annotate import layout, visible_truth
from macro.scenes.language import questions
from macro.sentence.formats.inset import from_phrase_map
from macro.sentence.plan import Plan
from macro.sentence.prompt import prompt_of
from macro.sentence.spans import Image, Sentence, Span, Target, Truth
from macro.utils.errors import UserError
from macro.utils.streams import branch

__all__ = ["ENGINE", "Options"]


def start(seed: int, index: int, attempt: int, options: Options) -> InsetCandidate:
    """The branch is that of the first attempt: retries must not bias the mixture towards the easier one."""
    is_video, rank = branch(seed, index, "branch", options.video)
    return InsetCandidate(seed, index, attempt, "compose", VIDEO if is_video else IMAGE, rank=rank)


def check_phrases(candidate: InsetCandidate, options: Options) -> InsetCandidate:
    """Removes regions that the caption leaves out, and renumbers the others in the order of their mention.

    A phrase that is not in the caption, or a number without a region, drops the candidate.
    """
    try:
        spans = _spans(candidate)
    except UserError as error:
        return candidate.check("phrases", False, reason=str(error))
    mentioned = [image.number for image in spans if isinstance(image, Image) and image.number is not None]
    numbers = {old: new for new, old in enumerate(mentioned, 1)}
    phrases = {phrase: numbers[n] for phrase, n in candidate.told.phrases.items()}
    told = InterleavedCaption(candidate.told.caption, phrases)
    candidate = candidate.only([number - 1 for number in mentioned]).replace(told=told)
    return enough(candidate, "phrases", len(mentioned), options)


def _spans(candidate: InsetCandidate) -> tuple[Span, ...]:
    images = [Image(image.pixels, subject=n) for n, image in enumerate(candidate.references, 1)]
    return from_phrase_map(candidate.told.caption, candidate.told.phrases, images)


def think(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """The chain of thought, if a plan is requested."""
    if not options.plan:
        return candidates
    briefs = [PromptRequest(d.target, d.placed, d.references, d.seed_for("think")) for d in candidates]
    thoughts = provider.think(briefs, [prompt_of(Sentence(_spans(d))) for d in candidates])
    return set_answers(candidates, "think", "cot", thoughts)


def finish(candidate: InsetCandidate, options: Options) -> Sentence:
    """Caption with images in it, plan if requested, target; the truth if the target's scene is known."""
    plan = ()
    if options.plan:
        plan = (Plan(candidate.cot, layout(np.stack([region.mask for region in candidate.placed]))),)
    about = {"regions": region_notes(candidate.placed), "phrases": candidate.told.phrases}
    notes = notes_of(candidate, ENGINE, **about, judged=list(candidate.judged))
    if candidate.bucket == IMAGE:
        notes |= {"caption": candidate.caption, "descriptions": list(candidate.descriptions)}
    else:
        notes |= {"seconds": list(candidate.pair.seconds)}
    spans = (*_spans(candidate), *plan, Target(candidate.target.pixels))
    return Sentence(spans, candidate.task, candidate.index, _truth(candidate), notes)


def _truth(candidate: InsetCandidate) -> Truth | None:
    """The truth about the image: the subjects that references show, in their order, then what else is visible."""
    truth = known_truth(candidate.target)
    if truth is None:
        return None
    subjects = [subject_at(truth, region) for region in candidate.placed]
    if None in subjects or len(set(subjects)) < len(subjects):
        return None
    truth = visible_truth(truth, subjects)
    return replace(truth, questions=questions.ask(truth, candidate.rng("questions")))


ENGINE = Engine(
    name="inset",
    version="1.1.0",
    options=Options,
    start=start,
    steps=(
        Step("photo", only("bucket", IMAGE, images.photo)),
        Step("caption", only("bucket", IMAGE, images.caption)),
        Step("tag", only("bucket", IMAGE, images.tag)),
        Step("detect", only("bucket", IMAGE, images.detect)),
        Step("pair", only("bucket", VIDEO, video.pair)),
        Step("match", only("bucket", VIDEO, video.match)),
        Step("stillness", only("bucket", VIDEO, video.moving)),
        Step("changed", only("bucket", VIDEO, video.changing)),
        Step("sizes", each(choose_sizes)),
        Step("segment", segment),
        Step("cut", each(cut)),
        Step("describe", only("bucket", IMAGE, images.describe)),
        Step("merge", only("bucket", IMAGE, images.merge)),
        Step("narrate", only("bucket", VIDEO, video.narrate)),
        Step("phrases", each(check_phrases)),
        Step("think", think),
    ),
    finish=finish,
)
