"""What a server's reply means: the text in it, or whether its refusal concerns this question, this moment, or us.

Raised for all questions: `UserError`. For one: `Again` (later it may work), `OtherForm` (it does not know structured
answers), `No` (it will not answer this one). Read next: `endpoint.py`.
"""

import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from macro.utils.errors import UserError


class Unusable(Exception):
    """A reply without an answer in it; `again`: the next may have one."""

    def __init__(self, reason: str, again: bool = False):
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class Again:
    """Worth sending again, after `wait` seconds if the server said so. `nobody`: no server was reached."""

    reason: str
    wait: float | None = None
    nobody: bool = False


@dataclass(frozen=True)
class OtherForm:
    """The server does not know the form that the answer was asked in."""

    reason: str


@dataclass(frozen=True)
class No:
    """This question is not answered."""

    reason: str


# ---- a reply ----


def content(body: bytes) -> tuple[str, tuple[int, int]]:
    """(what the model wrote, (tokens read, tokens written)) of a chat completion.

    Raises:
        Unusable: a refusal, one of the content filter, or no chat completion at all.
    """
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        written, refusal = message.get("content"), message.get("refusal")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Unusable("the reply is no chat completion", again=True) from None
    if ended == "content_filter" or refusal:
        raise Unusable(f"the model refuses: {refusal or 'content filter'}")
    if not isinstance(written, str | None):
        raise Unusable("the reply is no chat completion", again=True)
    usage = reply.get("usage") if isinstance(reply.get("usage"), dict) else {}
    read, wrote = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return written or "", (read if type(read) is int else 0, wrote if type(wrote) is int else 0)


# ---- a refusal ----

_MISSING_MODEL = ("model_not_found", "invalid_model")
_SETTINGS = ("temperature", "seed", "max_completion_tokens")
_FORM_WORDS = ("response_format", "json_schema", "json_object", "json schema", "structured output", "guided", "grammar")


def meaning(error: Exception, client: Any, model: str) -> Again | OtherForm | No:
    """What an error of the `openai` package (or of the connection under it) means.

    Raises:
        UserError: it would meet every question. The error itself, if it is neither's.
    """
    import httpx
    import openai

    if isinstance(error, Unusable):
        return Again(str(error)) if error.again else No(str(error))
    if isinstance(error, openai.APIStatusError):
        return _status(error, client, model)
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
        return Again(str(cause) or "no connection", nobody=True)
    if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
        return Again("timed out")
    if isinstance(cause, httpx.UnsupportedProtocol | httpx.InvalidURL):
        raise UserError(unreachable(client, str(cause)))
    if isinstance(error, openai.APIConnectionError | httpx.TransportError):
        return Again(f"the connection broke ({type(cause).__name__})")
    raise error


def _status(error: Any, client: Any, model: str) -> Again | OtherForm | No:
    status, where = error.status_code, shown(str(client.base_url))
    said = " ".join(_said(error).replace(client.api_key, "***").split())[:300]
    if status == 401 or status == 403:
        raise UserError(f"endpoint {where}: refuses the key ({status}: {said}); set OPENAI_API_KEY to a valid one")
    if status == 404 or error.code in _MISSING_MODEL:
        raise UserError(
            f"endpoint {where}: does not know model {model!r} or this address ({status}: {said}); "
            "check the model's name, and that the address ends as in http://host:8000/v1"
        )
    if status == 402 or error.code == "insufficient_quota":
        raise UserError(f"endpoint {where}: wants to be paid first ({status}: {said}); check the account")
    if status in (408, 409, 429) or status >= 500:
        return Again(f"status {status}: {said}", wait=_retry_after(error.response.headers))
    if status in (400, 422) and error.param in _SETTINGS:
        raise UserError(f"endpoint {where}: model {model!r} takes no such {error.param} ({said}); set it to None")
    if status in (400, 422) and any(word in f"{error.param} {said}".lower() for word in _FORM_WORDS):
        return OtherForm(f"status {status}: {said}")
    return No(f"status {status}: {said}")


def _said(error: Any) -> str:
    body = error.body
    said = body.get("message") if isinstance(body, dict) else body
    return said if isinstance(said, str) else str(error.message)


def _retry_after(headers: Any) -> float | None:
    """Seconds, from `Retry-After` in seconds or as a date, or from `retry-after-ms`."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        date = email.utils.parsedate_tz(headers.get("retry-after"))
        return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def unreachable(client: Any, reason: str) -> str:
    where = shown(str(client.base_url))
    return f"endpoint {where}: nobody answers ({reason}); start the server or set OPENAI_BASE_URL to its address"


def shown(url: str) -> str:
    """An address without the user and password that may stand in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
