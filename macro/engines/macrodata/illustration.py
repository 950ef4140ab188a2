"""MACRO's illustration (arXiv 2603.25319): the next picture of a story, from its text and the pictures it needs.

    story     a story with a page that needs as many earlier pictures as the bucket says
    rewrite   a VLM says which earlier pictures contribute (distractors do not) and rewrites the page's text with one
              `<image n>` for each; their number must fall into the bucket
    judge     kept if text and earlier pictures are consistent with the page's picture, 6 of 10 or better

Read next: `judging.py`, `macro/engines/procedural/story.py`.
"""

from dataclasses import dataclass, replace

from macro.engines.drafts import Draft, Step, use
from macro.engines.known import truths
from macro.engines.macrodata.judging import judged, misnamed
from macro.engines.macrodata.mixture import BUCKETS, references_of
from macro.engines.macrodata.options import Options
from macro.engines.sources import Picture, SourceFault, Story
from macro.engines.stages import Judgement, Rewritten, Stages
from macro.scenes.language import questions
from macro.sentence.formats import ARRANGEMENTS
from macro.sentence.spans import Image, Sentence, Target


@dataclass(frozen=True, eq=False)
class Illustration(Draft):
    """What is known of a sample, which is to have `wanted` references.

    Attributes:
        story, page: the story, and the place of the page to draw in it.
        prompt, references: the rewritten text and the pictures it names.
    """

    wanted: int = 1
    story: Story | None = None
    page: int = 0
    prompt: str = ""
    references: tuple[Picture, ...] = ()

    @property
    def before(self) -> tuple[tuple[str, Picture], ...]:
        """Text and picture of all that comes before the page; distractors have no text."""
        out: list[tuple[str, Picture]] = []
        for place in range(self.page + 1):
            out += [("", picture) for at, picture in self.story.distractors if at == place]
            if place < self.page:
                out.append((self.story.pages[place].text, self.story.pages[place].picture))
        return tuple(out)


def start(seed: int, index: int, attempt: int, bucket: str, options: Options) -> Illustration:
    """An empty draft; its number of references is the same for every attempt."""
    wanted = references_of(seed, index, bucket)
    return Illustration(seed, index, attempt, "illustration", bucket, wanted=wanted)


# ---- steps ----


def _find(drafts: list[Illustration], stages: Stages, options: Options) -> list[Illustration]:
    return [_found(draft, stages, options) for draft in drafts]


def _found(draft: Illustration, stages: Stages, options: Options) -> Illustration:
    """Looks through stories for a page that needs `wanted` pictures, else takes the nearest within the bucket."""
    best: tuple[int, Story, int] | None = None
    fault = ""
    for look in range(options.stories):
        try:
            story = stages.sources.story(draft.seed, draft.number(f"story {look}"))
        except SourceFault as error:
            fault = f" ({error})"
            continue
        pages = {page: needed(story, page, draft.wanted) for page in range(1, len(story.pages))}
        for page in draft.stream(f"page {look}").permutation(list(pages)):
            off = abs(pages[int(page)] - draft.wanted)
            if pages[int(page)] in BUCKETS[draft.bucket] and (best is None or off < best[0]):
                best = off, story, int(page)
        if best is not None and best[0] == 0:
            break
    if best is None:
        reason = f"no page of {options.stories} stories needs {draft.bucket} earlier pictures{fault}"
        return draft.set(dropped=("story", reason))
    return draft.set(story=best[1], page=best[2])


def needed(story: Story, page: int, wanted: int) -> int:
    """How many earlier pages share a character with a page.

    Where nobody said who is on the pages any number up to theirs may be: `wanted`, as far as there are that many.
    """
    cast = set(story.cast(page))
    if not cast:
        return min(page, wanted)
    return sum(bool(cast & set(story.cast(earlier))) for earlier in range(page))


def _rewrite(drafts: list[Illustration], stages: Stages, options: Options) -> list[Illustration]:
    pages = [draft.story.pages[draft.page] for draft in drafts]
    answers = stages.rewrite(
        [[text for text, _ in draft.before] for draft in drafts],
        [[picture for _, picture in draft.before] for draft in drafts],
        [page.text for page in pages],
        [page.picture for page in pages],
        [draft.number("rewrite") for draft in drafts],
    )
    return use(drafts, "rewrite", answers, _rewritten)


def _rewritten(draft: Illustration, answer: Rewritten) -> Illustration:
    kept, before = answer.kept, draft.before
    strange = [place for place in kept if not 0 <= place < len(before)]
    if strange or len(set(kept)) < len(kept):
        return draft.set(dropped=("rewrite", f"keeps pictures {list(kept)} of {len(before)}"))
    wrong = misnamed(answer.text, len(kept))
    if wrong:
        return draft.set(dropped=("rewrite", wrong))
    right = len(kept) in BUCKETS[draft.bucket]
    draft = draft.set(prompt=answer.text, references=tuple(before[place][1] for place in kept))
    return draft.passes("references", right, float(len(kept)), "" if right else f"{len(kept)} pictures contribute")


def _judge(drafts: list[Illustration], stages: Stages, options: Options) -> list[Illustration]:
    judgements = [
        Judgement("illustration", d.prompt, d.references, d.story.pages[d.page].picture) for d in drafts
    ]
    return judged(drafts, judgements, stages, options.threshold)


STEPS = (Step("story", _find), Step("rewrite", _rewrite), Step("judge", _judge))


def finish(draft: Illustration, options: Options) -> Sentence:
    """The rewritten text and its pictures in one of the two arrangements, and the page's picture.

    A picture of a story shows several characters: it stands for no one subject.
    """
    images = [Image(picture.pixels, number=n) for n, picture in enumerate(draft.references, 1)]
    arrangement = "image_first" if draft.stream("arrangement").random() < options.image_first else "in_sentence"
    target = draft.story.pages[draft.page].picture
    spans = (*ARRANGEMENTS[arrangement](draft.prompt, images), Target(target.pixels))
    truth = None
    if target.scene is not None:
        truth = truths([target])[0]
        truth = replace(truth, questions=questions.ask(truth, draft.stream("questions")))
    notes = {"story": draft.story.title, "page": draft.page + 1, "text": draft.story.pages[draft.page].text}
    return Sentence(spans, "illustration", draft.index, truth, notes)
