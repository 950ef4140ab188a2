"""A request to a language model: text and images in, JSON of a required schema out. And what answers it: a `Chat`.

    ask = LlmRequest("You caption images.", ("Image 1:", pixels), obj(caption=text()), read=lambda a: a["caption"])
    chat.ask([ask, ...])    ["a dog", ItemError("timed out, 6 times"), ...], one for each, in order

`cache_key` covers all that determines an answer; other settings of a chat (threads, time limits) may change freely.
An answer is accepted if it matches the schema and `read` can use it. Otherwise it is sent back with the error, up
to `max_repairs` times. Read next: `endpoint.py`, `local.py` (two chats), `response_cache.py`.
"""

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from macro.judges.json_schema import Schema, extract_json, only_promised, schema_error
from macro.judges.response_cache import ResponseCache
from macro.utils.errors import ItemError
from macro.utils.images import Pixels

# Changes whenever requests are put to models in another way, so that answers cached before are not reused.
VERSION = 1


def _as_it_is(answer: Any) -> Any:
    return answer


@dataclass(frozen=True, eq=False)
class LlmRequest:
    """One request.

    Attributes:
        system: the model's role and task.
        parts: the request itself, text and images uint8[h, w, 3] in order.
        schema: of the answer, an `obj` of `json_schema.py`.
        seed: for models that sample; the same one gives the same answer where the server supports it.
        read: turns an answer of that schema into the value, or raises `ItemError`.
    """

    system: str
    parts: tuple[str | Pixels, ...]
    schema: Schema
    seed: int = 0
    read: Callable[[Any], Any] = _as_it_is


# ---- a request as models see it ----

# Malformed answers so far: each answer, and what was wrong with it.
Turns = Sequence[tuple[str, str]]


def system_prompt(ask: LlmRequest) -> str:
    """The system text, with the schema for models whose server does not enforce it."""
    shape = json.dumps(ask.schema, ensure_ascii=False)
    return f"{ask.system}\n\nAnswer with one JSON object and nothing else. It has to fit this JSON schema:\n{shape}"


def messages(ask: LlmRequest, turns: Turns, image: Callable[[Pixels], dict]) -> list[dict]:
    """The conversation in the format of chat templates and servers; `image` makes the entry of an image."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else image(part) for part in ask.parts]
    text_only = all(isinstance(part, str) for part in ask.parts)  # some servers take nothing but plain text
    told = [
        {"role": "system", "content": system_prompt(ask)},
        {"role": "user", "content": "\n".join(ask.parts) if text_only else parts},
    ]
    for written, reason in turns:
        correction = f"That answer cannot be used: {reason}. Answer the question again, with the whole JSON object."
        told += [{"role": "assistant", "content": written}, {"role": "user", "content": correction}]
    return told


def cache_key(ask: LlmRequest, **asked: Any) -> str:
    """A hash of all that determines the answer; `asked` is the model and its settings."""
    parts = [part if isinstance(part, str) else _print_of(part) for part in ask.parts]
    told = {"version": VERSION, "system": ask.system, "parts": parts, "schema": ask.schema, "seed": ask.seed}
    return hashlib.sha256(json.dumps([told, asked], sort_keys=True).encode()).hexdigest()


def _print_of(pixels: Pixels) -> list:
    return [*pixels.shape[:2], hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()]


def parse_answer(ask: LlmRequest, written: str | None) -> tuple[Any, Any]:
    """(the answer as JSON, what `read` makes of it) from what a model wrote.

    Raises:
        ItemError: no JSON object, one that does not match the schema, or one that `read` cannot use.
    """
    answer = extract_json(written or "")
    if answer is None:
        raise ItemError("it holds no JSON object" if written else "it is empty")
    fault = schema_error(answer, ask.schema)
    if fault:
        raise ItemError(fault)
    answer = only_promised(answer, ask.schema)
    return answer, ask.read(answer)


class Chat:
    """A language model with a cache: sends identical requests once, keeps answers on disk, sends malformed ones back.

    Derived classes implement `_write`, which puts one request to the model.

    Args:
        model: its name.
        settings: what else determines the answers, for `cache_key`.
        cache: folder of answers (`response_cache.py`); None keeps none.
        max_repairs: how often a malformed answer is sent back.
        threads: requests in flight at once.
    """

    def __init__(
        self, model: str, settings: dict[str, Any], cache: str | os.PathLike | None, max_repairs: int, threads: int
    ):
        self.model = model
        self._key_settings, self._max_repairs, self._threads = settings, max_repairs, threads
        self._cache = ResponseCache(cache)
        self._lock = threading.Lock()
        self._counts: Counter = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """Counts of requests "asked", answers "cached", "retried", "malformed", "failed", "tokens_in", "tokens_out"."""
        with self._lock:
            return dict(self._counts)

    def ask(self, asks: Sequence[LlmRequest]) -> list[Any]:
        """What `read` made of each answer, or an `ItemError`, in order; identical requests are sent once.

        Raises:
            UserError: no request could succeed: no such model, wrong key or address, server unreachable, no credit.
        """
        keys = [cache_key(ask, **self._key_settings) for ask in asks]
        different = dict(zip(keys, asks, strict=True))
        with ThreadPoolExecutor(max(1, min(self._threads, len(different)))) as pool:
            answers = {key: pool.submit(self._answer, key, ask) for key, ask in different.items()}
            try:
                done, _ = wait(answers.values(), return_when=FIRST_EXCEPTION)
                for answer in done:
                    answer.result()  # raises the error that stopped one of them
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [answers[key].result() for key in keys]

    def _write(self, key: str, ask: LlmRequest, turns: Turns) -> str | ItemError:
        """The model's text after these turns, or why there is none."""
        raise NotImplementedError

    def _count(self, **more: int) -> None:
        with self._lock:
            self._counts.update(more)

    def _answer(self, key: str, ask: LlmRequest) -> Any:
        with self._cache.holding(key):
            stored = self._cache.get(key)
            if stored is not None:
                try:
                    value = ask.read(stored)
                except ItemError:  # `read` has become stricter since; the request is sent again
                    pass
                else:
                    self._count(cached=1)
                    return value
            value = self._repaired(key, ask)
            self._count(failed=int(isinstance(value, ItemError)))
            return value

    def _repaired(self, key: str, ask: LlmRequest) -> Any:
        """Sends the request, and malformed answers back."""
        turns: list[tuple[str, str]] = []
        for _ in range(self._max_repairs + 1):
            written = self._write(key, ask, turns)
            if isinstance(written, ItemError):
                return written
            try:
                answer, value = parse_answer(ask, written)
            except ItemError as error:
                self._count(malformed=1)
                turns.append((written, str(error)))
            else:
                self._cache.put(key, answer, self.model)
                return value
        return ItemError(f"malformed answer {len(turns)} times, last: {turns[-1][1]}")
