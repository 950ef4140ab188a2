"""The provider that answers stages with real models, from pixels alone.

    provider = foundation.provider(foundation.Options(llm="qwen3-32b", vlm="qwen2.5-vl-72b"), sources)

Language models answer at an OpenAI-compatible endpoint (OPENAI_BASE_URL, OPENAI_API_KEY), or are loaded here if
their name starts with "local:". Vision models are loaded by `transformers` and `diffusers` on their first
call, so that an engine loads only what it uses.

    language.py   scenes, captions, instructions, thoughts, judgements (`prompts.py`, `response_parsers.py`)
    detector.py, segmenter.py, generators.py, embeddings.py, orb_filter.py   vision models

Read next: `macro/engines/provider.py`, `macro/judges/endpoint.py`.
"""

import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from macro.engines.foundation.categories import CATEGORIES
from macro.engines.foundation.detector import GroundingDino
from macro.engines.foundation.embeddings import Clip, Dino
from macro.engines.foundation.generators import FluxCompose, FluxDraw, KontextRedraw
from macro.engines.foundation.language import STAGES, Language
from macro.engines.foundation.orb_filter import OrbStillness
from macro.engines.foundation.segmenter import Sam2
from macro.engines.material.types import EngineImage, MaterialSource
from macro.engines.provider import Provider, Region
from macro.judges.chat import Chat
from macro.judges.endpoint import Endpoint
from macro.judges.local import LocalChat
from macro.utils.config import non_hash_field
from macro.utils.errors import UserError

LOCAL = "local:"


def answers_folder() -> str:
    """Default folder of answers, in macro's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(root) / "macro" / "answers")


@dataclass(frozen=True)
class Options:
    """Which models answer, and how they are called. Addresses and timeouts are not part of a data set's hash.

    Attributes:
        llm, vlm: names at the endpoint, or "local:" and a hub name or folder.
        judge: the same; None is the VLM.
        base_url: the endpoint; None is OPENAI_BASE_URL. The key is read from OPENAI_API_KEY only.
        cache: folder of answers, so that no request is sent twice.
        time_limit: seconds for one request; retries: how often one is resent; wait: seconds before the first retry.
        threads: requests in flight at once.
        side: largest side of the images sent to language models, pixels; jpeg: send them compressed.
        temperature: of language models; None leaves it to the server, and is Qwen's own .7 for local ones.
        detector, segmenter, clip, dino, drawer, redrawer, composer, stillness: the vision stages with settings of
            their own: `name` (of the hub, or a folder), `batch`, a drawer's `steps` and `guidance`, and so on.
        device: of all models loaded here without one of their own; None is a GPU where there is one.
        categories: what scenes may contain.
    """

    llm: str = "Qwen/Qwen3-32B"
    vlm: str = "Qwen/Qwen2.5-VL-72B-Instruct"
    judge: str | None = None
    base_url: str | None = non_hash_field(default=None)
    cache: str = non_hash_field(default_factory=answers_folder)
    time_limit: int | float = non_hash_field(default=120.0)
    retries: int = non_hash_field(default=5)
    wait: int | float = non_hash_field(default=1.0)
    threads: int = non_hash_field(default=8)
    side: int = 1024
    jpeg: bool = False
    temperature: int | float | None = None
    detector: GroundingDino = GroundingDino()
    segmenter: Sam2 = Sam2()
    clip: Clip = Clip()
    dino: Dino = Dino()
    drawer: FluxDraw = FluxDraw()
    redrawer: KontextRedraw = KontextRedraw()
    composer: FluxCompose = FluxCompose()
    stillness: OrbStillness = OrbStillness()
    device: str | None = None
    categories: tuple[str, ...] = CATEGORIES

    def __post_init__(self):
        for name in ("time_limit", "threads", "side"):
            if getattr(self, name) <= 0:
                raise UserError(f"foundation options: {name}={getattr(self, name)} must be above 0")
        for name in ("retries", "wait"):
            if getattr(self, name) < 0:
                raise UserError(f"foundation options: {name}={getattr(self, name)} must not be below 0")
        if not self.categories:
            raise UserError("foundation options: categories is empty; name what scenes may be made of")


class Chats(NamedTuple):
    """The chats for the three roles; two roles of one model share an object."""

    llm: Chat
    vlm: Chat
    judge: Chat


def chats(options: Options) -> Chats:
    """The language models of the options.

    Raises:
        UserError: there is no endpoint for those that are not local, or the `openai` package is missing.
    """
    names = (options.llm, options.vlm, options.judge or options.vlm)
    made = {name: _chat(name, options) for name in dict.fromkeys(names)}
    return Chats(*(made[name] for name in names))


def _chat(name: str, options: Options) -> Chat:
    if name.startswith(LOCAL):
        temperature = {} if options.temperature is None else {"temperature": options.temperature}
        path = name.removeprefix(LOCAL)
        return LocalChat(path, device=options.device, cache=options.cache, side=options.side, **temperature)
    return Endpoint(
        name,
        base_url=options.base_url,
        cache=options.cache,
        time_limit=options.time_limit,
        retries=options.retries,
        wait=options.wait,
        threads=options.threads,
        side=options.side,
        jpeg=options.jpeg,
        temperature=options.temperature,
    )


class Spent:
    """`Provider.spent`: the chats' counts (`Chat.counts`) since the last call."""

    def __init__(self, asked: Chats):
        self._chats = list(dict.fromkeys(asked))
        self._told: Counter = Counter()
        self._lock = threading.Lock()

    def __call__(self) -> dict[str, int]:
        with self._lock:
            now = sum((Counter(chat.counts) for chat in self._chats), Counter())
            new, self._told = now - self._told, now
        return dict(new)


def remove_subjects(images: Sequence[EngineImage], regions: Sequence[Sequence[Region]]) -> list[None]:
    """None for every image: a generated image cannot be drawn again with fewer subjects and all else the same."""
    del regions
    return [None] * len(images)


def provider(options: Options, sources: MaterialSource) -> Provider:
    """The provider of every stage.

    Raises:
        UserError: as `chats`; also from any stage whose model cannot be loaded.
    """
    asked = chats(options)
    language = Language(*asked)

    def placed(stage: Any) -> Any:
        return stage if stage.device is not None else replace(stage, device=options.device)

    return Provider(
        sources=sources,
        categories=options.categories,
        draw=placed(options.drawer),
        novel_view=placed(options.redrawer),
        compose=placed(options.composer),
        remove_subjects=remove_subjects,
        detect=placed(options.detector),
        segment=placed(options.segmenter),
        text_similarity=placed(options.clip),
        image_similarity=placed(options.dino),
        static_share=options.stillness,
        spent=Spent(asked),
        **{name: getattr(language, name) for name in STAGES},
    )
