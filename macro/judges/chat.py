"""A question to a language model: words and images in, JSON of a promised shape out. And who answers: a `Chat`.

    ask = Ask("You caption images.", ("Image 1:", pixels), obj(caption=text()), read=lambda a: a["caption"])
    chat.ask([ask, ...])    ["a dog", Failure("timed out 6 times"), ...], one for each, in order

What determines an answer is all in `cache_key`; whatever else a chat is told (threads, time limits) may change freely.
An answer is good once it has the promised shape and `read` makes something of it. One that is not is sent back
with what is wrong, a few times. Read next: `endpoint.py`, `local.py` (two chats), `response_cache.py`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from macro.judges.json_schema import Schema, extract_json, only_promised, schema_error
from macro.utils.errors import ItemError
from macro.utils.images import Pixels

# Changes whenever questions are put to models in another way, so that stored answers are not taken for theirs.
VERSION = 1


def _as_it_is(answer: Any) -> Any:
    return answer


@dataclass(frozen=True, eq=False)
class LlmRequest:
    """One question.

    Attributes:
        system: what the model is and what it should do.
        parts: the question itself, words and images uint8[h, w, 3] in order.
        schema: the shape of the answer, an `obj` of `json_schema.py`.
        seed: for models that draw their words at random; the same one gives the same answer where the server can.
        read: makes the value out of an answer of that shape, or raises `ItemError`.
    """

    system: str
    parts: tuple[str | Pixels, ...]
    schema: Schema
    seed: int = 0
    read: Callable[[Any], Any] = _as_it_is


@runtime_checkable
class Chat(Protocol):
    """Whoever answers."""

    def ask(self, asks: Sequence[LlmRequest]) -> list[Any]:
        """What `read` made of each answer, or a `ItemError`, in order."""
        ...


# ---- a question as models see it ----

# A question that was answered badly: the answer, and what was wrong with it.
Turns = Sequence[tuple[str, str]]


def system_prompt(ask: LlmRequest) -> str:
    """The system text: also says the shape, for models whose server does not enforce it."""
    shape = json.dumps(ask.schema, ensure_ascii=False)
    return f"{ask.system}\n\nAnswer with one JSON object and nothing else. It has to fit this JSON schema:\n{shape}"


def correction(reason: str) -> str:
    return f"That answer cannot be used: {reason}. Answer the question again, with the whole JSON object."


def cache_key(ask: LlmRequest, **asked: Any) -> str:
    """A name for all that determines the answer; `asked` is the model and its settings."""
    parts = [part if isinstance(part, str) else _print_of(part) for part in ask.parts]
    told = {"version": VERSION, "system": ask.system, "parts": parts, "schema": ask.schema, "seed": ask.seed}
    return hashlib.sha256(json.dumps([told, asked], sort_keys=True).encode()).hexdigest()


def _print_of(pixels: Pixels) -> list:
    return [*pixels.shape[:2], hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()]


def parse_answer(ask: LlmRequest, written: str | None) -> tuple[Any, Any]:
    """(the answer as JSON, what `read` makes of it) from what a model wrote.

    Raises:
        Malformed: no JSON object, not of the promised shape, or nothing that `read` can use.
    """
    answer = extract_json(written or "")
    if answer is None:
        raise ItemError("it holds no JSON object" if written else "it is empty")
    fault = schema_error(answer, ask.schema)
    if fault:
        raise ItemError(fault)
    answer = only_promised(answer, ask.schema)
    return answer, ask.read(answer)
