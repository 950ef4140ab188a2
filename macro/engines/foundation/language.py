"""The stages that a language model answers, given the request as JSON, the images, and a schema for its answer.

    talk = Language(llm, vlm, judge)      three `macro.judges.chat.Chat`s, which may be one
    talk.caption(images, seeds)           a stage of `macro/engines/provider.py`

Each stage is written as the request for one item; `stage` turns it into a stage on batches, one list per argument.
An answer that stays malformed after all repairs is an `ItemError`, as is one that never came.
Read next: `prompts.py` (the system prompts), `response_parsers.py` (validation of the answers).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from typing import Any

from macro.engines.foundation import prompts
from macro.engines.foundation import response_parsers as parsers
from macro.engines.foundation.batching import crop
from macro.engines.material.types import EngineImage
from macro.engines.provider import Box, JudgeRequest, Match, PromptRequest, Region, SceneRequest
from macro.judges import rubrics
from macro.judges.chat import Chat, LlmRequest
from macro.judges.json_schema import array, boolean, integer, number, obj
from macro.judges.json_schema import text as words
from macro.sentence.spans import MAX_REFERENCES
from macro.utils.errors import ItemError
from macro.utils.images import Pixels

MOST_THINGS = 12  # named or matched in one image at most
_MARGIN = 0.1  # around the crop of a box, as a share of its sides: shows whether the box cuts something off

# Images, each with the name under which it is shown.
_Shown = Sequence[tuple[str, Pixels]]

STAGES: list[str] = []


def stage(role: str) -> Callable[[Callable[..., Any]], Callable[..., list[Any]]]:
    """Turns the request for one item into a stage of `Provider`.

    Args:
        role: the attribute of `Language` that answers: "llm", "vlm" or "judge".

    Returns:
        A decorator of functions that take one item's arguments and return its `LlmRequest`, or the answer at once.
    """

    def of_batch(ask: Callable[..., Any]) -> Callable[..., list[Any]]:
        STAGES.append(ask.__name__)

        @wraps(ask)
        def batch(self, *arguments):
            asks = [ask(self, *item) for item in zip(*arguments, strict=True)]
            answers = iter(getattr(self, role).ask([ask for ask in asks if isinstance(ask, LlmRequest)]))
            return [next(answers) if isinstance(ask, LlmRequest) else ask for ask in asks]

        return batch

    return of_batch


class Language:
    """The language stages: `llm` is given text only, `vlm` images too, `judge` scores."""

    def __init__(self, llm: Chat, vlm: Chat, judge: Chat):
        self.llm, self.vlm, self.judge_chat = llm, vlm, judge

    @stage("llm")
    def write_scene(self, asked: SceneRequest, seed: int) -> LlmRequest:
        schema = obj(labels=array(words(), 1, MOST_THINGS), caption=words())
        read = partial(parsers.scene_prompt, asked)
        return _request("write_scene", schema, read, (), seed, categories=asked.categories, count=asked.count)

    @stage("llm")
    def merge(
        self, image: EngineImage, caption: str, regions: Sequence[Region], descriptions: Sequence[str], seed: int
    ) -> LlmRequest:
        del image  # the model gets text only [paper]
        things = [
            told | {"description": description}
            for told, description in zip(_numbered_regions(regions), descriptions, strict=True)
        ]
        return _interleaving("merge", things, (), seed, caption=caption)

    @stage("vlm")
    def tag(self, image: EngineImage) -> LlmRequest:
        return _request("tag", obj(labels=array(words(), 0, MOST_THINGS)), parsers.labels, _named(image))

    @stage("vlm")
    def verify(self, image: EngineImage, regions: Sequence[Region]) -> LlmRequest | list | ItemError:
        crops = [_crop_with_margin(image, region) for region in regions]
        fault = next((pixels for pixels in crops if isinstance(pixels, ItemError)), None)
        if fault is not None or not regions:
            return fault or []
        shown = [*_named(image), *((f"Crop {n}", pixels) for n, pixels in enumerate(crops, 1))]
        schema = obj(correct=array(boolean(), len(regions), len(regions)))
        read = parsers.field("correct")
        return _request("verify", schema, read, shown, regions=_numbered_regions(regions))

    @stage("vlm")
    def caption(self, image: EngineImage, seed: int) -> LlmRequest:
        return _request("caption", obj(caption=words()), parsers.line_of("caption"), _named(image), seed)

    @stage("vlm")
    def describe(self, image: EngineImage, region: Region, seed: int) -> LlmRequest | ItemError:
        pixels = _crop_with_margin(image, region)
        if isinstance(pixels, ItemError):
            return pixels
        shown = [*_named(image), ("Crop", pixels)]
        return _request(
            "describe", obj(phrase=words()), parsers.noun_phrase, shown, seed, region=_label_and_box(region)
        )

    @stage("vlm")
    def instruct(self, brief: PromptRequest) -> LlmRequest:
        count = len(brief.references)
        return _about_target("instruct", brief, "instruction", partial(parsers.instruction, count), references=count)

    @stage("vlm")
    def think(self, brief: PromptRequest, prompt: str) -> LlmRequest:
        return _about_target("think", brief, "thought", partial(parsers.thought, brief.regions), instruction=prompt)

    @stage("vlm")
    def rate(self, references: Sequence[EngineImage], categories: Sequence[str], seed: int) -> LlmRequest:
        count = len(references)
        schema = obj(descriptions=array(words(), count, count), instruction=words(), score=number(0, 10))
        read = partial(parsers.suitability, count)
        return _request("rate", schema, read, _references(references), seed, categories=list(categories))

    @stage("vlm")
    def match(self, before: EngineImage, after: EngineImage) -> LlmRequest:
        thing = obj(label=words(), before=parsers.BOX, after=parsers.BOX)
        return _request("match", obj(things=array(thing, 0, MOST_THINGS)), parsers.matches, _frames(before, after))

    @stage("vlm")
    def changed(self, before: EngineImage, after: EngineImage) -> LlmRequest:
        schema = obj(difference=words(), changed=boolean())
        return _request("changed", schema, parsers.field("changed"), _frames(before, after))

    @stage("vlm")
    def narrate(self, before: EngineImage, after: EngineImage, matches: Sequence[Match], seed: int) -> LlmRequest:
        things = [
            {"number": n, "label": m.label, "before": _rounded(m.before.box), "after": _rounded(m.after.box)}
            for n, m in enumerate(matches, 1)
        ]
        return _interleaving("narrate", things, _frames(before, after), seed)

    @stage("vlm")
    def rewrite(
        self, pages: Sequence[str], images: Sequence[EngineImage], text: str, target: EngineImage, seed: int
    ) -> LlmRequest:
        numbers = array(integer(1, max(len(images), 1)), 0, min(len(images), MAX_REFERENCES))
        shown = [*_numbered("Image {}", images), ("The illustration", target.pixels)]
        schema = obj(kept=numbers, text=words())
        return _request("rewrite", schema, parsers.rewritten, shown, seed, pages=list(pages), text=text)

    @stage("vlm")
    def summarise(self, frames: Sequence[EngineImage], seed: int) -> LlmRequest:
        shown = _numbered("Frame {}", frames)
        return _request("summarise", obj(summary=words()), parsers.summary, shown, seed, frames=len(frames))

    @stage("judge_chat")
    def judge(self, given: JudgeRequest) -> LlmRequest:
        references = [image.pixels for image in given.references]
        truth = None if given.truth is None else given.truth.pixels
        return rubrics.question(given.rubric, given.prompt, references, given.image.pixels, truth)


# ---- requests ----


def _request(
    name: str, schema: dict, read: Callable[[dict], Any], images: _Shown = (), seed: int = 0, **parameters: Any
) -> LlmRequest:
    """A stage's request: its parameters as JSON, then each image after its name."""
    told = json.dumps({"stage": name, "seed": seed, **parameters}, ensure_ascii=False)
    parts = [part for label, pixels in images for part in (f"{label}:", pixels)]
    return LlmRequest(prompts.system(name), (told, *parts), schema, seed, read)


def _about_target(
    name: str, brief: PromptRequest, field: str, read: Callable[[dict], Any], **parameters: Any
) -> LlmRequest:
    """A request about a target, its subjects and its references, answered by one text."""
    subjects = _numbered_regions(brief.regions)
    shown = [("Target", brief.image.pixels), *_references(brief.references)]
    return _request(name, obj(**{field: words()}), read, shown, brief.seed, subjects=subjects, **parameters)


def _interleaving(name: str, things: list[dict], images: _Shown, seed: int, **parameters: Any) -> LlmRequest:
    """A request for a caption with a phrase for each of the things."""
    schema = obj(caption=words(), phrases=parsers.phrases(len(things)))
    read = partial(parsers.interleaved, len(things))
    return _request(name, schema, read, images, seed, **parameters, things=things)


# ---- parameters and images of requests ----


def _label_and_box(region: Region) -> dict:
    return {"label": region.label, "box": _rounded(region.box)}


def _numbered_regions(regions: Sequence[Region]) -> list[dict]:
    return [{"number": n, **_label_and_box(region)} for n, region in enumerate(regions, 1)]


def _rounded(box: Box) -> list[float]:
    return [round(edge, 4) for edge in box]


def _crop_with_margin(image: EngineImage, region: Region) -> Pixels | ItemError:
    x0, y0, x1, y1 = region.box
    dx, dy = _MARGIN * (x1 - x0), _MARGIN * (y1 - y0)
    wider = (max(x0 - dx, 0.0), max(y0 - dy, 0.0), min(x1 + dx, 1.0), min(y1 + dy, 1.0))
    return crop(image, replace(region, box=wider), False)


def _named(image: EngineImage) -> list[tuple[str, Pixels]]:
    return [("Image", image.pixels)]


def _numbered(name: str, images: Sequence[EngineImage]) -> list[tuple[str, Pixels]]:
    return [(name.format(n), image.pixels) for n, image in enumerate(images, 1)]


def _references(images: Sequence[EngineImage]) -> list[tuple[str, Pixels]]:
    return _numbered("Reference <image {}>", images)


def _frames(first: EngineImage, second: EngineImage) -> list[tuple[str, Pixels]]:
    return [("First frame", first.pixels), ("Second frame", second.pixels)]
