"""The stages that ask a language model: it gets the request as JSON, the pictures, and a shape for its answer.

    talk = Language(llm, vlm, judge)      three `macro.judges.asking.Chat`s, which may be one
    talk.caption(pictures, seeds)         a stage of `macro/engines/stages.py`

An answer that stays wrong after it has been sent back is a `Fault`, as is one that never came.
Read next: `prompts.py` (what models are told), `answers.py` (what their answers are held against).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from macro.engines.foundation import answers, prompts
from macro.engines.foundation.items import crop
from macro.engines.sources import Picture
from macro.engines.stages import (
    Box,
    Brief,
    Fault,
    Idea,
    Interleaved,
    Judgement,
    Match,
    Region,
    Rewritten,
    SceneAsk,
    Suitability,
)
from macro.judges import rubric
from macro.judges.asking import Ask, Chat, Failure
from macro.judges.shapes import Schema, array, boolean, integer, number, obj
from macro.judges.shapes import text as words
from macro.sentence.spans import MAX_REFERENCES
from macro.utils.images import Pixels

MOST_THINGS = 12  # that are named or matched in one picture
_MARGIN = 0.1  # around the crop that shows a box, as a share of its sides: what is cut off shows

# Stages without a seed of their own ask with this one.
_SEED = 0

_As = Callable[[dict], Any]


def request(
    stage: str,
    schema: Schema,
    read: _As,
    pictures: Sequence[tuple[str, Pixels]] = (),
    seed: int = _SEED,
    **parameters: Any,
) -> Ask:
    """A stage's question: its parameters as JSON, then each picture after its name."""
    told = json.dumps({"stage": stage, "seed": seed, **parameters}, ensure_ascii=False)
    parts = [part for name, pixels in pictures for part in (f"{name}:", pixels)]
    return Ask(prompts.system(stage), (told, *parts), schema, seed, read)


def put(chat: Chat, asks: Sequence[Ask | Fault]) -> list[Any]:
    """The answers in order; what could not even be asked stays the fault that it is."""
    answered = iter(chat.ask([ask for ask in asks if isinstance(ask, Ask)]))
    given = [next(answered) if isinstance(ask, Ask) else ask for ask in asks]
    return [Fault(answer.reason) if isinstance(answer, Failure) else answer for answer in given]


def told_of(region: Region) -> dict:
    return {"label": region.label, "box": _rounded(region.box)}


def _rounded(box: Box) -> list[float]:
    return [round(edge, 4) for edge in box]


def _shown(picture: Picture, region: Region) -> Pixels | Fault:
    """What a box holds, with a margin."""
    x0, y0, x1, y1 = region.box
    dx, dy = _MARGIN * (x1 - x0), _MARGIN * (y1 - y0)
    wider = (max(x0 - dx, 0.0), max(y0 - dy, 0.0), min(x1 + dx, 1.0), min(y1 + dy, 1.0))
    return crop(picture, replace(region, box=wider), False)


def _numbered(name: str, pictures: Sequence[Picture]) -> list[tuple[str, Pixels]]:
    return [(f"{name} {n}", picture.pixels) for n, picture in enumerate(pictures, 1)]


def _references(pictures: Sequence[Picture]) -> list[tuple[str, Pixels]]:
    return [(f"Reference <image {n}>", picture.pixels) for n, picture in enumerate(pictures, 1)]


class Language:
    """The language stages: `llm` is given words only, `vlm` pictures too, `judge` scores."""

    def __init__(self, llm: Chat, vlm: Chat, judge: Chat):
        self._llm, self._vlm, self._judge = llm, vlm, judge

    # ---- words only ----

    def write_scene(self, asks: Sequence[SceneAsk], seeds: Sequence[int]) -> list[Idea | Fault]:
        schema = obj(labels=array(words(), 1, MOST_THINGS), caption=words())
        return put(
            self._llm,
            [
                request(
                    "write_scene", schema, answers.idea(ask), seed=seed, categories=ask.categories, count=ask.count
                )
                for ask, seed in zip(asks, seeds, strict=True)
            ],
        )

    def merge(
        self,
        pictures: Sequence[Picture],
        captions: Sequence[str],
        regions: Sequence[Sequence[Region]],
        descriptions: Sequence[Sequence[str]],
        seeds: Sequence[int],
    ) -> list[Interleaved | Fault]:
        del pictures  # the model is given words only [paper]

        def ask(caption: str, found: Sequence[Region], described: Sequence[str], seed: int) -> Ask:
            things = [
                {"number": n, **told_of(region), "description": description}
                for n, (region, description) in enumerate(zip(found, described, strict=True), 1)
            ]
            return _interleaving("merge", len(things), (), seed=seed, caption=caption, things=things)

        return put(self._llm, [ask(*given) for given in zip(captions, regions, descriptions, seeds, strict=True)])

    # ---- one picture ----

    def tag(self, pictures: Sequence[Picture]) -> list[list[str] | Fault]:
        schema = obj(labels=array(words(), 0, MOST_THINGS))
        return put(
            self._vlm, [request("tag", schema, answers.labels, [("Picture", picture.pixels)]) for picture in pictures]
        )

    def verify(
        self, pictures: Sequence[Picture], regions: Sequence[Sequence[Region]]
    ) -> list[list[bool] | Fault]:
        def ask(picture: Picture, found: Sequence[Region]) -> Ask | Fault:
            crops = [_shown(picture, region) for region in found]
            fault = next((pixels for pixels in crops if isinstance(pixels, Fault)), None)
            if fault is not None:
                return fault
            shown = [("Picture", picture.pixels), *((f"Crop {n}", pixels) for n, pixels in enumerate(crops, 1))]
            schema = obj(correct=array(boolean(), len(found), len(found)))
            told = [{"number": n, **told_of(region)} for n, region in enumerate(found, 1)]
            return request("verify", schema, answers.field("correct"), shown, regions=told)

        pairs = list(zip(pictures, regions, strict=True))
        answered = iter(put(self._vlm, [ask(picture, found) for picture, found in pairs if found]))
        return [next(answered) if found else [] for _, found in pairs]

    def caption(self, pictures: Sequence[Picture], seeds: Sequence[int]) -> list[str | Fault]:
        schema, read = obj(caption=words()), answers.words("caption")
        return put(
            self._vlm,
            [
                request("caption", schema, read, [("Picture", picture.pixels)], seed)
                for picture, seed in zip(pictures, seeds, strict=True)
            ],
        )

    def describe(
        self, pictures: Sequence[Picture], regions: Sequence[Region], seeds: Sequence[int]
    ) -> list[str | Fault]:
        def ask(picture: Picture, region: Region, seed: int) -> Ask | Fault:
            pixels = _shown(picture, region)
            if isinstance(pixels, Fault):
                return pixels
            shown = [("Picture", picture.pixels), ("Crop", pixels)]
            return request("describe", obj(phrase=words()), answers.noun_phrase, shown, seed, region=told_of(region))

        return put(self._vlm, [ask(*given) for given in zip(pictures, regions, seeds, strict=True)])

    # ---- a target and its references ----

    def instruct(self, briefs: Sequence[Brief]) -> list[str | Fault]:
        def ask(brief: Brief) -> Ask:
            count = len(brief.references)

            def read(answer: dict) -> str:
                return answers.with_markers(answer["instruction"], count, "instruction")

            return _about(brief, "instruct", obj(instruction=words()), read, references=count)

        return put(self._vlm, [ask(brief) for brief in briefs])

    def think(self, briefs: Sequence[Brief], prompts: Sequence[str]) -> list[str | Fault]:
        return put(
            self._vlm,
            [
                _about(brief, "think", obj(thought=words()), answers.thought(brief.regions), instruction=prompt)
                for brief, prompt in zip(briefs, prompts, strict=True)
            ],
        )

    def rate(
        self, references: Sequence[Sequence[Picture]], categories: Sequence[Sequence[str]], seeds: Sequence[int]
    ) -> list[Suitability | Fault]:
        def ask(pictures: Sequence[Picture], kinds: Sequence[str], seed: int) -> Ask:
            count = len(pictures)
            schema = obj(descriptions=array(words(), count, count), instruction=words(), score=number(0, 10))
            read = answers.suitability(count)
            return request("rate", schema, read, _references(pictures), seed, categories=list(kinds))

        return put(self._vlm, [ask(*given) for given in zip(references, categories, seeds, strict=True)])

    # ---- frames and pages ----

    def match(self, before: Sequence[Picture], after: Sequence[Picture]) -> list[list[Match] | Fault]:
        thing = obj(label=words(), before=answers.BOX, after=answers.BOX)
        schema = obj(things=array(thing, 0, MOST_THINGS))
        return put(
            self._vlm,
            [
                request("match", schema, answers.matches, _frames(first, second))
                for first, second in zip(before, after, strict=True)
            ],
        )

    def changed(self, before: Sequence[Picture], after: Sequence[Picture]) -> list[bool | Fault]:
        schema = obj(difference=words(), changed=boolean())
        return put(
            self._vlm,
            [
                request("changed", schema, answers.field("changed"), _frames(first, second))
                for first, second in zip(before, after, strict=True)
            ],
        )

    def narrate(
        self,
        before: Sequence[Picture],
        after: Sequence[Picture],
        matches: Sequence[Sequence[Match]],
        seeds: Sequence[int],
    ) -> list[Interleaved | Fault]:
        def ask(first: Picture, second: Picture, same: Sequence[Match], seed: int) -> Ask:
            things = [
                {"number": n, "label": m.label, "before": _rounded(m.before.box), "after": _rounded(m.after.box)}
                for n, m in enumerate(same, 1)
            ]
            return _interleaving("narrate", len(things), _frames(first, second), seed=seed, things=things)

        return put(self._vlm, [ask(*given) for given in zip(before, after, matches, seeds, strict=True)])

    def rewrite(
        self,
        texts: Sequence[Sequence[str]],
        pictures: Sequence[Sequence[Picture]],
        text: Sequence[str],
        targets: Sequence[Picture],
        seeds: Sequence[int],
    ) -> list[Rewritten | Fault]:
        def ask(
            pages: Sequence[str], shown: Sequence[Picture], page: str, target: Picture, seed: int
        ) -> Ask:
            numbers = array(integer(1, max(len(shown), 1)), 0, min(len(shown), MAX_REFERENCES))
            seen = [*_numbered("Picture", shown), ("The illustration", target.pixels)]
            schema = obj(kept=numbers, text=words())
            return request("rewrite", schema, answers.rewritten, seen, seed, pages=list(pages), text=page)

        return put(self._vlm, [ask(*given) for given in zip(texts, pictures, text, targets, seeds, strict=True)])

    def summarise(self, frames: Sequence[Sequence[Picture]], seeds: Sequence[int]) -> list[str | Fault]:
        schema = obj(summary=words())
        return put(
            self._vlm,
            [
                request("summarise", schema, answers.summary, _numbered("Frame", shown), seed, frames=len(shown))
                for shown, seed in zip(frames, seeds, strict=True)
            ],
        )

    # ---- scores ----

    def judge(self, judgements: Sequence[Judgement]) -> list[dict[str, float] | Fault]:
        asks = []
        for given in judgements:
            references = [picture.pixels for picture in given.references]
            truth = None if given.truth is None else given.truth.pixels
            asks.append(rubric.question(given.rubric, given.prompt, references, given.picture.pixels, truth))
        return put(self._judge, asks)


def _frames(first: Picture, second: Picture) -> list[tuple[str, Pixels]]:
    return [("First frame", first.pixels), ("Second frame", second.pixels)]


def _about(brief: Brief, stage: str, schema: Schema, read: _As, **parameters: Any) -> Ask:
    """A question on a target, its subjects and its references."""
    subjects = [{"number": n, **told_of(region)} for n, region in enumerate(brief.regions, 1)]
    shown = [("Target", brief.picture.pixels), *_references(brief.references)]
    return request(stage, schema, read, shown, brief.seed, subjects=subjects, **parameters)


def _interleaving(
    stage: str, count: int, pictures: Sequence[tuple[str, Pixels]], seed: int, **parameters: Any
) -> Ask:
    """A question for a caption in which each of `count` things has a phrase."""
    schema = obj(caption=words(), phrases=answers.phrases(count))
    return request(stage, schema, answers.interleaved(count), pictures, seed, **parameters)
