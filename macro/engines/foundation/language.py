"""The stages that ask a language model: it gets the request as JSON, the images, and a shape for its answer.

    talk = Language(llm, vlm, judge)      three `macro.judges.chat.Chat`s, which may be one
    talk.caption(images, seeds)         a stage of `macro/engines/provider.py`

An answer that stays wrong after it has been sent back is a `ItemError`, as is one that never came.
Read next: `prompts.py` (what models are told), `response_parsers.py` (what their answers are held against).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from macro.engines.foundation import prompts, response_parsers
from macro.engines.foundation.batching import crop
from macro.engines.material.types import EngineImage
from macro.engines.provider import (
    Box,
    InterleavedCaption,
    JudgeRequest,
    Match,
    PromptRequest,
    Region,
    RewrittenPage,
    ScenePrompt,
    SceneRequest,
    Suitability,
)
from macro.judges import rubrics
from macro.judges.chat import Chat, LlmRequest
from macro.judges.json_schema import Schema, array, boolean, integer, number, obj
from macro.judges.json_schema import text as words
from macro.sentence.spans import MAX_REFERENCES
from macro.utils.errors import ItemError
from macro.utils.images import Pixels

MOST_THINGS = 12  # that are named or matched in one image
_MARGIN = 0.1  # around the crop that shows a box, as a share of its sides: what is cut off shows

# Stages without a seed of their own ask with this one.
_SEED = 0

_As = Callable[[dict], Any]


def request(
    stage: str,
    schema: Schema,
    read: _As,
    images: Sequence[tuple[str, Pixels]] = (),
    seed: int = _SEED,
    **parameters: Any,
) -> LlmRequest:
    """A stage's question: its parameters as JSON, then each image after its name."""
    told = json.dumps({"stage": stage, "seed": seed, **parameters}, ensure_ascii=False)
    parts = [part for name, pixels in images for part in (f"{name}:", pixels)]
    return LlmRequest(prompts.system(stage), (told, *parts), schema, seed, read)


def put(chat: Chat, asks: Sequence[LlmRequest | ItemError]) -> list[Any]:
    """The answers in order; what could not even be asked stays the fault that it is."""
    answered = iter(chat.ask([ask for ask in asks if isinstance(ask, LlmRequest)]))
    given = [next(answered) if isinstance(ask, LlmRequest) else ask for ask in asks]
    return [ItemError(answer.reason) if isinstance(answer, ItemError) else answer for answer in given]


def told_of(region: Region) -> dict:
    return {"label": region.label, "box": _rounded(region.box)}


def _rounded(box: Box) -> list[float]:
    return [round(edge, 4) for edge in box]


def _shown(image: EngineImage, region: Region) -> Pixels | ItemError:
    """What a box holds, with a margin."""
    x0, y0, x1, y1 = region.box
    dx, dy = _MARGIN * (x1 - x0), _MARGIN * (y1 - y0)
    wider = (max(x0 - dx, 0.0), max(y0 - dy, 0.0), min(x1 + dx, 1.0), min(y1 + dy, 1.0))
    return crop(image, replace(region, box=wider), False)


def _numbered(name: str, images: Sequence[EngineImage]) -> list[tuple[str, Pixels]]:
    return [(f"{name} {n}", image.pixels) for n, image in enumerate(images, 1)]


def _references(images: Sequence[EngineImage]) -> list[tuple[str, Pixels]]:
    return [(f"Reference <image {n}>", image.pixels) for n, image in enumerate(images, 1)]


class Language:
    """The language stages: `llm` is given words only, `vlm` images too, `judge` scores."""

    def __init__(self, llm: Chat, vlm: Chat, judge: Chat):
        self._llm, self._vlm, self._judge = llm, vlm, judge

    # ---- words only ----

    def write_scene(self, asks: Sequence[SceneRequest], seeds: Sequence[int]) -> list[ScenePrompt | ItemError]:
        schema = obj(labels=array(words(), 1, MOST_THINGS), caption=words())
        return put(
            self._llm,
            [
                request(
                    "write_scene",
                    schema,
                    response_parsers.idea(ask),
                    seed=seed,
                    categories=ask.categories,
                    count=ask.count,
                )
                for ask, seed in zip(asks, seeds, strict=True)
            ],
        )

    def merge(
        self,
        images: Sequence[EngineImage],
        captions: Sequence[str],
        regions: Sequence[Sequence[Region]],
        descriptions: Sequence[Sequence[str]],
        seeds: Sequence[int],
    ) -> list[InterleavedCaption | ItemError]:
        del images  # the model is given words only [paper]

        def ask(caption: str, found: Sequence[Region], described: Sequence[str], seed: int) -> LlmRequest:
            things = [
                {"number": n, **told_of(region), "description": description}
                for n, (region, description) in enumerate(zip(found, described, strict=True), 1)
            ]
            return _interleaving("merge", len(things), (), seed=seed, caption=caption, things=things)

        return put(self._llm, [ask(*given) for given in zip(captions, regions, descriptions, seeds, strict=True)])

    # ---- one image ----

    def tag(self, images: Sequence[EngineImage]) -> list[list[str] | ItemError]:
        schema = obj(labels=array(words(), 0, MOST_THINGS))
        return put(
            self._vlm,
            [request("tag", schema, response_parsers.labels, [("Image", image.pixels)]) for image in images],
        )

    def verify(
        self, images: Sequence[EngineImage], regions: Sequence[Sequence[Region]]
    ) -> list[list[bool] | ItemError]:
        def ask(image: EngineImage, found: Sequence[Region]) -> LlmRequest | ItemError:
            crops = [_shown(image, region) for region in found]
            fault = next((pixels for pixels in crops if isinstance(pixels, ItemError)), None)
            if fault is not None:
                return fault
            shown = [("Image", image.pixels), *((f"Crop {n}", pixels) for n, pixels in enumerate(crops, 1))]
            schema = obj(correct=array(boolean(), len(found), len(found)))
            told = [{"number": n, **told_of(region)} for n, region in enumerate(found, 1)]
            return request("verify", schema, response_parsers.field("correct"), shown, regions=told)

        pairs = list(zip(images, regions, strict=True))
        answered = iter(put(self._vlm, [ask(image, found) for image, found in pairs if found]))
        return [next(answered) if found else [] for _, found in pairs]

    def caption(self, images: Sequence[EngineImage], seeds: Sequence[int]) -> list[str | ItemError]:
        schema, read = obj(caption=words()), response_parsers.words("caption")
        return put(
            self._vlm,
            [
                request("caption", schema, read, [("Image", image.pixels)], seed)
                for image, seed in zip(images, seeds, strict=True)
            ],
        )

    def describe(
        self, images: Sequence[EngineImage], regions: Sequence[Region], seeds: Sequence[int]
    ) -> list[str | ItemError]:
        def ask(image: EngineImage, region: Region, seed: int) -> LlmRequest | ItemError:
            pixels = _shown(image, region)
            if isinstance(pixels, ItemError):
                return pixels
            shown = [("Image", image.pixels), ("Crop", pixels)]
            return request(
                "describe", obj(phrase=words()), response_parsers.noun_phrase, shown, seed, region=told_of(region)
            )

        return put(self._vlm, [ask(*given) for given in zip(images, regions, seeds, strict=True)])

    # ---- a target and its references ----

    def instruct(self, briefs: Sequence[PromptRequest]) -> list[str | ItemError]:
        def ask(brief: PromptRequest) -> LlmRequest:
            count = len(brief.references)

            def read(answer: dict) -> str:
                return response_parsers.with_markers(answer["instruction"], count, "instruction")

            return _about(brief, "instruct", obj(instruction=words()), read, references=count)

        return put(self._vlm, [ask(brief) for brief in briefs])

    def think(self, briefs: Sequence[PromptRequest], prompts: Sequence[str]) -> list[str | ItemError]:
        return put(
            self._vlm,
            [
                _about(
                    brief, "think", obj(thought=words()), response_parsers.thought(brief.regions), instruction=prompt
                )
                for brief, prompt in zip(briefs, prompts, strict=True)
            ],
        )

    def rate(
        self, references: Sequence[Sequence[EngineImage]], categories: Sequence[Sequence[str]], seeds: Sequence[int]
    ) -> list[Suitability | ItemError]:
        def ask(images: Sequence[EngineImage], kinds: Sequence[str], seed: int) -> LlmRequest:
            count = len(images)
            schema = obj(descriptions=array(words(), count, count), instruction=words(), score=number(0, 10))
            read = response_parsers.suitability(count)
            return request("rate", schema, read, _references(images), seed, categories=list(kinds))

        return put(self._vlm, [ask(*given) for given in zip(references, categories, seeds, strict=True)])

    # ---- frames and pages ----

    def match(self, before: Sequence[EngineImage], after: Sequence[EngineImage]) -> list[list[Match] | ItemError]:
        thing = obj(label=words(), before=response_parsers.BOX, after=response_parsers.BOX)
        schema = obj(things=array(thing, 0, MOST_THINGS))
        return put(
            self._vlm,
            [
                request("match", schema, response_parsers.matches, _frames(first, second))
                for first, second in zip(before, after, strict=True)
            ],
        )

    def changed(self, before: Sequence[EngineImage], after: Sequence[EngineImage]) -> list[bool | ItemError]:
        schema = obj(difference=words(), changed=boolean())
        return put(
            self._vlm,
            [
                request("changed", schema, response_parsers.field("changed"), _frames(first, second))
                for first, second in zip(before, after, strict=True)
            ],
        )

    def narrate(
        self,
        before: Sequence[EngineImage],
        after: Sequence[EngineImage],
        matches: Sequence[Sequence[Match]],
        seeds: Sequence[int],
    ) -> list[InterleavedCaption | ItemError]:
        def ask(first: EngineImage, second: EngineImage, same: Sequence[Match], seed: int) -> LlmRequest:
            things = [
                {"number": n, "label": m.label, "before": _rounded(m.before.box), "after": _rounded(m.after.box)}
                for n, m in enumerate(same, 1)
            ]
            return _interleaving("narrate", len(things), _frames(first, second), seed=seed, things=things)

        return put(self._vlm, [ask(*given) for given in zip(before, after, matches, seeds, strict=True)])

    def rewrite(
        self,
        texts: Sequence[Sequence[str]],
        images: Sequence[Sequence[EngineImage]],
        text: Sequence[str],
        targets: Sequence[EngineImage],
        seeds: Sequence[int],
    ) -> list[RewrittenPage | ItemError]:
        def ask(
            pages: Sequence[str], shown: Sequence[EngineImage], page: str, target: EngineImage, seed: int
        ) -> LlmRequest:
            numbers = array(integer(1, max(len(shown), 1)), 0, min(len(shown), MAX_REFERENCES))
            seen = [*_numbered("Image", shown), ("The illustration", target.pixels)]
            schema = obj(kept=numbers, text=words())
            return request("rewrite", schema, response_parsers.rewritten, seen, seed, pages=list(pages), text=page)

        return put(self._vlm, [ask(*given) for given in zip(texts, images, text, targets, seeds, strict=True)])

    def summarise(self, frames: Sequence[Sequence[EngineImage]], seeds: Sequence[int]) -> list[str | ItemError]:
        schema = obj(summary=words())
        return put(
            self._vlm,
            [
                request(
                    "summarise", schema, response_parsers.summary, _numbered("Frame", shown), seed, frames=len(shown)
                )
                for shown, seed in zip(frames, seeds, strict=True)
            ],
        )

    # ---- scores ----

    def judge(self, requests: Sequence[JudgeRequest]) -> list[dict[str, float] | ItemError]:
        asks = []
        for given in requests:
            references = [image.pixels for image in given.references]
            truth = None if given.truth is None else given.truth.pixels
            asks.append(rubrics.question(given.rubric, given.prompt, references, given.image.pixels, truth))
        return put(self._judge, asks)


def _frames(first: EngineImage, second: EngineImage) -> list[tuple[str, Pixels]]:
    return [("First frame", first.pixels), ("Second frame", second.pixels)]


def _about(brief: PromptRequest, stage: str, schema: Schema, read: _As, **parameters: Any) -> LlmRequest:
    """A question on a target, its subjects and its references."""
    subjects = [{"number": n, **told_of(region)} for n, region in enumerate(brief.regions, 1)]
    shown = [("Target", brief.image.pixels), *_references(brief.references)]
    return request(stage, schema, read, shown, brief.seed, subjects=subjects, **parameters)


def _interleaving(
    stage: str, count: int, images: Sequence[tuple[str, Pixels]], seed: int, **parameters: Any
) -> LlmRequest:
    """A question for a caption in which each of `count` things has a phrase."""
    schema = obj(caption=words(), phrases=response_parsers.phrases(count))
    return request(stage, schema, response_parsers.interleaved(count), images, seed, **parameters)
