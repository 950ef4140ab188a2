"""A foundation provider without foundation models: an endpoint, detectors and drawers that answer from scene truth.

The client, the prompts, the protocol, the pictures as PNG, the JSON, its checks: all of the path is real but for the
models themselves. What engines see are pixels only. The oracle remembers each picture that went out by a print of its
pixels, finds its scene again when the picture comes back, and has the procedural provider answer.
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
from macro.engines.sources import Clip, Panorama, Picture, Ring, Story
from macro.engines.stages import Brief, Fault, Idea, Judgement, Match, Region, SceneAsk, Stages
from macro.utils import images as image_io
from tests.judges.server import Reply, Server, refused, serving, written

VISION = ("draw", "detect", "segment", "redraw", "compare", "resemble", "without", "stillness", "compose")


class Oracle:
    """Answers for models; `exact` is the procedural provider."""

    def __init__(self, exact: Stages):
        self.exact = exact
        self.lock = threading.RLock()
        self.pictures: dict[str, Picture] = {}
        self.ideas: dict[tuple, Idea] = {}
        self.captioned: dict[str, Picture] = {}

    # ---- pictures: what engines see, and what the oracle knows of it ----

    def seen(self, given: Any) -> Any:
        """As engines get it: without scenes. Remembers them."""
        if isinstance(given, Picture):
            self.pictures[_print_of(given.pixels)] = given
            return Picture(given.pixels)
        if isinstance(given, list | tuple):
            return type(given)(map(self.seen, given))
        return given

    def known(self, given: Any) -> Any:
        """As it was before `seen`."""
        if isinstance(given, Picture):
            return self.pictures.get(_print_of(given.pixels), given)
        if isinstance(given, Idea):
            return self.ideas[given.caption, given.labels]
        if isinstance(given, list | tuple):
            return [self.known(item) for item in given]
        return given

    def watching(self) -> Stages:
        """The exact stages; the oracle sees what is judged: engines cut views from panoramas, which it never drew."""

        def judge(judgements):
            for asked in judgements:
                self.seen([*asked.references, asked.picture])
            return self.exact.judge(judgements)

        return dataclasses.replace(self.exact, judge=judge)

    def standing_in(self, stage: str) -> Callable:
        """A vision stage that looks pictures up."""

        def answer(*arguments, **named):
            with self.lock:
                named = {name: self.known(value) for name, value in named.items()}
                return self.seen(getattr(self.exact, stage)(*map(self.known, arguments), **named))

        return answer

    # ---- the endpoint ----

    def completion(self, request: dict) -> dict:
        """The answer to a request, whichever stage asks."""
        told, pictures = _read(request)
        with self.lock:
            answer = getattr(self, told["stage"])(told, [self.pictures.get(_print_of(p), Picture(p)) for p in pictures])
        if isinstance(answer, Fault):
            return written("", message={"refusal": answer.reason})
        return written(answer)

    def write_scene(self, told, pictures):
        (idea,) = self.exact.write_scene([SceneAsk(tuple(told["categories"]), told["count"])], [told["seed"]])
        if isinstance(idea, Fault):
            return idea
        before = self.ideas.setdefault((idea.caption, idea.labels), idea)
        assert before == idea, "two scenes with one caption: the drawer could not tell them apart"
        return {"labels": idea.labels, "caption": idea.caption}

    def tag(self, told, pictures):
        return _field("labels", self.exact.tag(pictures))

    def verify(self, told, pictures):
        return _field("correct", self.exact.verify(pictures[:1], [_regions(told["regions"])]))

    def caption(self, told, pictures):
        (caption,) = self.exact.caption(pictures, [told["seed"]])
        before = self.captioned.setdefault(caption, pictures[0])
        assert before.scene == pictures[0].scene, "two pictures with one caption: merge could not tell them apart"
        return {"caption": caption}

    def describe(self, told, pictures):
        return _field("phrase", self.exact.describe(pictures[:1], _regions([told["region"]]), [told["seed"]]))

    def merge(self, told, pictures):
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

    def _brief(self, told, pictures) -> Brief:
        return Brief(pictures[0], tuple(_regions(told["subjects"])), tuple(pictures[1:]), told["seed"])

    def instruct(self, told, pictures):
        return _field("instruction", self.exact.instruct([self._brief(told, pictures)]))

    def think(self, told, pictures):
        return _field("thought", self.exact.think([self._brief(told, pictures)], [told["instruction"]]))

    def match(self, told, pictures):
        (found,) = self.exact.match(pictures[:1], pictures[1:])
        if isinstance(found, Fault):
            return found
        return {"things": [{"label": m.label, "before": m.before.box, "after": m.after.box} for m in found]}

    def changed(self, told, pictures):
        return _field("changed", self.exact.changed(pictures[:1], pictures[1:]), difference="see for yourself")

    def narrate(self, told, pictures):
        matches = [
            Match(t["label"], Region(t["label"], tuple(t["before"])), Region(t["label"], tuple(t["after"])))
            for t in told["things"]
        ]
        return _interleaved(self.exact.narrate(pictures[:1], pictures[1:], [matches], [told["seed"]]))

    def rate(self, told, pictures):
        (rated,) = self.exact.rate([pictures], [told["categories"]], [told["seed"]])
        return rated if isinstance(rated, Fault) else dataclasses.asdict(rated)

    def rewrite(self, told, pictures):
        arguments = ([told["pages"]], [pictures[:-1]], [told["text"]], pictures[-1:], [told["seed"]])
        (page,) = self.exact.rewrite(*arguments)
        return page if isinstance(page, Fault) else {"kept": [n + 1 for n in page.kept], "text": page.text}

    def summarise(self, told, pictures):
        return _field("summary", self.exact.summarise([pictures], [told["seed"]]))

    def judge(self, told, pictures):
        references, rest = pictures[: told["references"]], pictures[told["references"] :]
        truth = rest[0] if len(rest) == 2 else None
        asked = Judgement(told["rubric"], told["prompt"], tuple(references), rest[-1], truth)
        (scores,) = self.exact.judge([asked])
        return scores if isinstance(scores, Fault) else {"observations": "as seen", **scores}


def _field(name: str, answers: list, **more: Any) -> Any:
    (answer,) = answers
    return answer if isinstance(answer, Fault) else {**more, name: answer}


def _interleaved(answers: list) -> Any:
    (answer,) = answers
    if isinstance(answer, Fault):
        return answer
    phrases = [{"phrase": phrase, "image": n} for phrase, n in answer.phrases.items()]
    return {"caption": answer.caption, "phrases": phrases}


def _regions(told: list[dict]) -> list[Region]:
    return [Region(region["label"], tuple(region["box"])) for region in told]


def _print_of(pixels) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _read(request: dict) -> tuple[dict, list]:
    """(the request's JSON, its pictures in order)."""
    content = request["messages"][1]["content"]
    if isinstance(content, str):
        return json.loads(content), []
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    pictures = [image_io.decode(base64.b64decode(re.fullmatch("data:image/png;base64,(.*)", url)[1])) for url in urls]
    return json.loads(content[0]["text"]), pictures


class Views(Mapping):
    """A ring's views, which are drawn when they are first asked for."""

    def __init__(self, oracle: "Oracle", views: Mapping[str, Picture]):
        self._oracle, self._views = oracle, views

    def __getitem__(self, name: str) -> Picture:
        return self._oracle.seen(self._views[name])

    def __iter__(self):
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


class Frames(Sequence):
    """A clip's frames, likewise."""

    def __init__(self, oracle: "Oracle", frames: Sequence[Picture]):
        self._oracle, self._frames = oracle, frames

    def __getitem__(self, place):
        return self._oracle.seen(self._frames[place])

    def __len__(self) -> int:
        return len(self._frames)


class Material:
    """Raw material whose pictures have no scenes."""

    def __init__(self, oracle: Oracle):
        self._oracle, self._exact = oracle, oracle.exact.sources

    def photo(self, seed: int, index: int) -> Picture:
        return self._oracle.seen(self._exact.photo(seed, index))

    def pooled(self, category: str, seed: int, index: int) -> Picture:
        return self._oracle.seen(self._exact.pooled(category, seed, index))

    def clip(self, seed: int, index: int) -> Clip:
        clip = self._exact.clip(seed, index)
        return dataclasses.replace(clip, frames=Frames(self._oracle, clip.frames))

    def story(self, seed: int, index: int) -> Story:
        story = self._exact.story(seed, index)
        pages = tuple(dataclasses.replace(page, picture=self._oracle.seen(page.picture)) for page in story.pages)
        return dataclasses.replace(story, pages=pages, distractors=self._oracle.seen(tuple(story.distractors)))

    def ring(self, seed: int, index: int) -> Ring:
        ring = self._exact.ring(seed, index)
        return dataclasses.replace(ring, views=Views(self._oracle, ring.views))

    def panorama(self, seed: int, index: int) -> Panorama:
        panorama = self._exact.panorama(seed, index)
        return dataclasses.replace(panorama, picture=self._oracle.seen(panorama.picture))


@contextlib.contextmanager
def serving_truth(oracle: Oracle, cache: str) -> Iterator[tuple[Stages, Server]]:
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
        stages = foundation.stages(options, Material(oracle))
        yield dataclasses.replace(stages, **{stage: oracle.standing_in(stage) for stage in VISION}), server
