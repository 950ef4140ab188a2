"""A foundation provider without foundation models: an endpoint, detectors and drawers that answer from scene truth.

The client, the prompts, the protocol, the images as PNG, the JSON, its checks: all of the path is real but for the
models themselves. What engines see are pixels only. The oracle remembers each image that went out by a print of its
pixels, finds its scene again when the image comes back, and has the procedural provider answer.
"""

import base64
import contextlib
import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from macro.engines import foundation
from macro.engines.material.types import EngineImage, Panorama, Story, Turntable, VideoClip
from macro.engines.provider import (
    JudgeRequest,
    Match,
    PromptRequest,
    Provider,
    Region,
    ScenePrompt,
    SceneRequest,
)
from macro.utils import images as image_io
from macro.utils.errors import ItemError
from tests.judges.server import Reply, Server, refused, serving, written

VISION = (
    "draw",
    "detect",
    "segment",
    "novel_view",
    "text_similarity",
    "image_similarity",
    "remove_subjects",
    "static_share",
    "compose",
)


class Oracle:
    """Answers for models; `exact` is the procedural provider."""

    def __init__(self, exact: Provider):
        self.exact = exact
        self.lock = threading.RLock()
        self.images: dict[str, EngineImage] = {}
        self.ideas: dict[tuple, ScenePrompt] = {}
        self.captioned: dict[str, EngineImage] = {}

    # ---- images: what engines see, and what the oracle knows of it ----

    def seen(self, given: Any) -> Any:
        """As engines get it: without scenes. Remembers them."""
        if isinstance(given, EngineImage):
            self.images[_print_of(given.pixels)] = given
            return EngineImage(given.pixels)
        if isinstance(given, list | tuple):
            return type(given)(map(self.seen, given))
        return given

    def known(self, given: Any) -> Any:
        """As it was before `seen`."""
        if isinstance(given, EngineImage):
            return self.images.get(_print_of(given.pixels), given)
        if isinstance(given, ScenePrompt):
            return self.ideas[given.caption, given.labels]
        if isinstance(given, list | tuple):
            return [self.known(item) for item in given]
        return given

    def watching(self) -> Provider:
        """The exact stages; the oracle sees what is judged: engines cut views from panoramas, which it never drew."""

        def judge(requests):
            for asked in requests:
                self.seen([*asked.references, asked.image])
            return self.exact.judge(requests)

        return self.exact.replace(judge=judge)

    def standing_in(self, stage: str) -> Callable:
        """A vision stage that looks images up."""

        def answer(*arguments, **named):
            with self.lock:
                named = {name: self.known(value) for name, value in named.items()}
                return self.seen(getattr(self.exact, stage)(*map(self.known, arguments), **named))

        return answer

    # ---- the endpoint ----

    def completion(self, request: dict) -> dict:
        """The answer to a request, whichever stage asks."""
        told, images = _read(request)
        with self.lock:
            answer = getattr(self, told["stage"])(told, [self.images.get(_print_of(p), EngineImage(p)) for p in images])
        if isinstance(answer, ItemError):
            return written("", message={"refusal": answer.reason})
        return written(answer)

    def write_scene(self, told, images):
        (idea,) = self.exact.write_scene([SceneRequest(tuple(told["categories"]), told["count"])], [told["seed"]])
        if isinstance(idea, ItemError):
            return idea
        before = self.ideas.setdefault((idea.caption, idea.labels), idea)
        assert before == idea, "two scenes with one caption: the drawer could not tell them apart"
        return {"labels": idea.labels, "caption": idea.caption}

    def tag(self, told, images):
        return _field("labels", self.exact.tag(images))

    def verify(self, told, images):
        return _field("correct", self.exact.verify(images[:1], [_regions(told["regions"])]))

    def caption(self, told, images):
        (caption,) = self.exact.caption(images, [told["seed"]])
        before = self.captioned.setdefault(caption, images[0])
        assert before.scene == images[0].scene, "two images with one caption: merge could not tell them apart"
        return {"caption": caption}

    def describe(self, told, images):
        return _field("phrase", self.exact.describe(images[:1], _regions([told["region"]]), [told["seed"]]))

    def merge(self, told, images):
        things = told["things"]
        return _interleaved(
            self.exact.merge(
                [self.captioned[told["caption"]]],
                [told["caption"]],
                [_regions(things)],
                [[thing["description"] for thing in things]],
                [told["seed"]],
            )
        )

    def _brief(self, told, images) -> PromptRequest:
        return PromptRequest(images[0], tuple(_regions(told["subjects"])), tuple(images[1:]), told["seed"])

    def instruct(self, told, images):
        return _field("instruction", self.exact.instruct([self._brief(told, images)]))

    def think(self, told, images):
        return _field("thought", self.exact.think([self._brief(told, images)], [told["instruction"]]))

    def match(self, told, images):
        (found,) = self.exact.match(images[:1], images[1:])
        if isinstance(found, ItemError):
            return found
        return {"things": [{"label": m.label, "before": m.before.box, "after": m.after.box} for m in found]}

    def changed(self, told, images):
        return _field("changed", self.exact.changed(images[:1], images[1:]), difference="see for yourself")

    def narrate(self, told, images):
        matches = [
            Match(t["label"], Region(t["label"], tuple(t["before"])), Region(t["label"], tuple(t["after"])))
            for t in told["things"]
        ]
        return _interleaved(self.exact.narrate(images[:1], images[1:], [matches], [told["seed"]]))

    def rate(self, told, images):
        (rated,) = self.exact.rate([images], [told["categories"]], [told["seed"]])
        return rated if isinstance(rated, ItemError) else dataclasses.asdict(rated)

    def rewrite(self, told, images):
        arguments = ([told["pages"]], [images[:-1]], [told["text"]], images[-1:], [told["seed"]])
        (page,) = self.exact.rewrite(*arguments)
        return page if isinstance(page, ItemError) else {"kept": [n + 1 for n in page.kept], "text": page.text}

    def summarise(self, told, images):
        return _field("summary", self.exact.summarise([images], [told["seed"]]))

    def judge(self, told, images):
        references, rest = images[: told["references"]], images[told["references"] :]
        truth = rest[0] if len(rest) == 2 else None
        asked = JudgeRequest(told["rubric"], told["prompt"], tuple(references), rest[-1], truth)
        (scores,) = self.exact.judge([asked])
        return scores if isinstance(scores, ItemError) else {"observations": "as seen", **scores}


def _field(name: str, answers: list, **more: Any) -> Any:
    (answer,) = answers
    return answer if isinstance(answer, ItemError) else {**more, name: answer}


def _interleaved(answers: list) -> Any:
    (answer,) = answers
    if isinstance(answer, ItemError):
        return answer
    phrases = [{"phrase": phrase, "image": n} for phrase, n in answer.phrases.items()]
    return {"caption": answer.caption, "phrases": phrases}


def _regions(told: list[dict]) -> list[Region]:
    return [Region(region["label"], tuple(region["box"])) for region in told]


def _print_of(pixels) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _read(request: dict) -> tuple[dict, list]:
    """(the request's JSON, its images in order)."""
    content = request["messages"][1]["content"]
    if isinstance(content, str):
        return json.loads(content), []
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    images = [image_io.decode(base64.b64decode(re.fullmatch("data:image/png;base64,(.*)", url)[1])) for url in urls]
    return json.loads(content[0]["text"]), images


class Views(Mapping):
    """A ring's views, which are drawn when they are first asked for."""

    def __init__(self, oracle: "Oracle", views: Mapping[str, EngineImage]):
        self._oracle, self._views = oracle, views

    def __getitem__(self, name: str) -> EngineImage:
        return self._oracle.seen(self._views[name])

    def __iter__(self):
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


class Frames(Sequence):
    """A clip's frames, likewise."""

    def __init__(self, oracle: "Oracle", frames: Sequence[EngineImage]):
        self._oracle, self._frames = oracle, frames

    def __getitem__(self, place):
        return self._oracle.seen(self._frames[place])

    def __len__(self) -> int:
        return len(self._frames)


class FolderMaterial:
    """Raw material whose images have no scenes."""

    def __init__(self, oracle: Oracle):
        self._oracle, self._exact = oracle, oracle.exact.sources

    def photo(self, seed: int, index: int) -> EngineImage:
        return self._oracle.seen(self._exact.photo(seed, index))

    def pooled(self, category: str, seed: int, index: int) -> EngineImage:
        return self._oracle.seen(self._exact.pooled(category, seed, index))

    def clip(self, seed: int, index: int) -> VideoClip:
        clip = self._exact.clip(seed, index)
        return dataclasses.replace(clip, frames=Frames(self._oracle, clip.frames))

    def story(self, seed: int, index: int) -> Story:
        story = self._exact.story(seed, index)
        pages = tuple(dataclasses.replace(page, image=self._oracle.seen(page.image)) for page in story.pages)
        return dataclasses.replace(story, pages=pages, distractors=self._oracle.seen(tuple(story.distractors)))

    def turntable(self, seed: int, index: int) -> Turntable:
        ring = self._exact.turntable(seed, index)
        return dataclasses.replace(ring, views=Views(self._oracle, ring.views))

    def panorama(self, seed: int, index: int) -> Panorama:
        panorama = self._exact.panorama(seed, index)
        return dataclasses.replace(panorama, image=self._oracle.seen(panorama.image))


@contextlib.contextmanager
def serving_truth(oracle: Oracle, cache: str) -> Iterator[tuple[Provider, Server]]:
    """Foundation stages whose models are the oracle, and the server that they ask: one that fails now and then, asks
    for patience, and answers with something else. `cache`: folder of answers.
    """

    def answer(request: dict, count: int) -> dict | Reply:
        if count % 7 == 3:
            return refused(503, "overloaded")
        if count % 11 == 5:
            return refused(429, "slowly", {"Retry-After": "0.02"})
        if count % 13 == 6:
            return written("As a language model, I'd say {perhaps}.")
        return oracle.completion(request)

    with serving(answer) as server:
        options = foundation.Options(
            llm="oracle", vlm="oracle", base_url=server.url, cache=cache, wait=0.01, threads=4,
            categories=oracle.exact.categories,
        )  # fmt: skip
        provider = foundation.provider(options, FolderMaterial(oracle))
        yield provider.replace(**{stage: oracle.standing_in(stage) for stage in VISION}), server
