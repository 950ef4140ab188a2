"""MACRO's illustration (arXiv 2603.25319): the next image of a story, from its text and the images it needs.

    story     picks a story with a page that needs as many earlier images as the bucket says
    rewrite   a VLM selects the earlier images that contribute (no distractors) and rewrites the page's text with one
              `<image n>` for each; their number must fall into the bucket
    judge     kept if text and earlier images are consistent with the page's image, 6 of 10 or better

Read next: `filters.py`, `macro/engines/procedural/stories.py`.
"""

from dataclasses import dataclass, replace

from macro.engines.core import Candidate, Step, arranged, map_answers
from macro.engines.ground_truth import known_truth
from macro.engines.macrodata.filters import judge_scores, marker_error
from macro.engines.macrodata.mixture import BUCKETS, rank_of, references_of
from macro.engines.macrodata.options import Options
from macro.engines.material.types import EngineImage, Story
from macro.engines.provider import JudgeRequest, Provider, RewrittenPage
from macro.scenes.language import questions
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import ItemError


@dataclass(frozen=True, eq=False)
class IllustrationCandidate(Candidate):
    """A candidate that should have `wanted` references.

    Attributes:
        story, page: the story, and the index of the page to draw.
        prompt, references: the rewritten text and the images it names.
    """

    wanted: int = 1
    story: Story | None = None
    page: int = 0
    prompt: str = ""
    references: tuple[EngineImage, ...] = ()

    @property
    def before(self) -> tuple[tuple[str, EngineImage], ...]:
        """Text and image of everything before the page; distractors have no text."""
        out: list[tuple[str, EngineImage]] = []
        for place in range(self.page + 1):
            out += [("", image) for at, image in self.story.distractors if at == place]
            if place < self.page:
                out.append((self.story.pages[place].text, self.story.pages[place].image))
        return tuple(out)


def start(seed: int, index: int, attempt: int, bucket: str, options: Options) -> IllustrationCandidate:
    """An empty candidate; its number of references is the same for every attempt."""
    wanted = references_of(seed, index, bucket)
    return IllustrationCandidate(seed, index, attempt, "illustration", bucket, wanted=wanted)


# ---- steps ----

Batch = list[IllustrationCandidate]


def _find(candidates: Batch, provider: Provider, options: Options) -> Batch:
    return [_found(candidate, provider, options) for candidate in candidates]


def _found(candidate: IllustrationCandidate, provider: Provider, options: Options) -> IllustrationCandidate:
    """Searches stories for a page that needs `wanted` images, else takes the nearest number within the bucket."""
    best: tuple[int, Story, int] | None = None
    fault = ""
    for look in range(options.stories):
        try:
            number = rank_of(candidate.index) * options.stories + look
            story = provider.sources.story(candidate.seed, candidate.source_index(number, str(look)))
        except ItemError as error:
            fault = f" ({error})"
            continue
        pages = {page: needed(story, page, candidate.wanted) for page in range(1, len(story.pages))}
        for page in candidate.rng(f"page {look}").permutation(list(pages)):
            off = abs(pages[int(page)] - candidate.wanted)
            if pages[int(page)] in BUCKETS[candidate.bucket] and (best is None or off < best[0]):
                best = off, story, int(page)
        if best is not None and best[0] == 0:
            break
    if best is None:
        reason = f"no page of {options.stories} stories needs {candidate.bucket} earlier images{fault}"
        return candidate.replace(dropped=("story", reason))
    return candidate.replace(story=best[1], page=best[2])


def needed(story: Story, page: int, wanted: int) -> int:
    """How many earlier pages share a character with a page.

    If the casts of the pages are unknown, any number up to that of the earlier pages is possible: at most `wanted`.
    """
    cast = set(story.cast(page))
    if not cast:
        return min(page, wanted)
    return sum(bool(cast & set(story.cast(earlier))) for earlier in range(page))


def _rewrite(candidates: Batch, provider: Provider, options: Options) -> Batch:
    pages = [candidate.story.pages[candidate.page] for candidate in candidates]
    answers = provider.rewrite(
        [[text for text, _ in candidate.before] for candidate in candidates],
        [[image for _, image in candidate.before] for candidate in candidates],
        [page.text for page in pages],
        [page.image for page in pages],
        [candidate.seed_for("rewrite") for candidate in candidates],
    )
    return map_answers(candidates, "rewrite", answers, _rewritten)


def _rewritten(candidate: IllustrationCandidate, answer: RewrittenPage) -> IllustrationCandidate:
    kept, before = answer.kept, candidate.before
    strange = [place for place in kept if not 0 <= place < len(before)]
    if strange or len(set(kept)) < len(kept):
        return candidate.replace(dropped=("rewrite", f"keeps images {list(kept)} of {len(before)}"))
    wrong = marker_error(answer.text, len(kept))
    if wrong:
        return candidate.replace(dropped=("rewrite", wrong))
    right = len(kept) in BUCKETS[candidate.bucket]
    candidate = candidate.replace(prompt=answer.text, references=tuple(before[place][1] for place in kept))
    return candidate.check("references", right, float(len(kept)), "" if right else f"{len(kept)} images contribute")


def _judge(candidates: Batch, provider: Provider, options: Options) -> Batch:
    requests = [JudgeRequest("illustration", d.prompt, d.references, d.story.pages[d.page].image) for d in candidates]
    return judge_scores(candidates, requests, provider, options.threshold)


STEPS = (Step("story", _find), Step("rewrite", _rewrite), Step("judge", _judge))


def finish(candidate: IllustrationCandidate, options: Options) -> Sentence:
    """The rewritten text and its images in one of the two arrangements, and the page's image.

    An image of a story shows several characters, so it is not assigned to a subject.
    """
    images = [Image(image.pixels, number=n) for n, image in enumerate(candidate.references, 1)]
    page = candidate.story.pages[candidate.page]
    spans = arranged(candidate.prompt, images, candidate.rng("arrangement"), options.image_first)
    truth = known_truth(page.image)
    if truth is not None:
        truth = replace(truth, questions=questions.ask(truth, candidate.rng("questions")))
    notes = {"story": candidate.story.title, "page": candidate.page + 1, "text": page.text}
    spans = (*spans, Target(page.image.pixels))
    return Sentence(spans, "illustration", candidate.index, truth, notes)
