"""What a server's reply means: its text, or why there is none.

An error that concerns every request raises `UserError`; one of a single request is `Unanswered`. See `endpoint.py`.
"""

import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from macro.utils.errors import UserError


@dataclass(eq=False)
class Unanswered(Exception):
    """Why a request got no answer.

    Attributes:
        reason: in one line.
        again: the same request may succeed later, after `wait` seconds if the server said so.
        other_form: the server does not support the requested response format.
        nobody: no server was reached.
    """

    reason: str
    again: bool = False
    wait: float | None = None
    other_form: bool = False
    nobody: bool = False


# ---- a reply ----


def content(body: bytes) -> tuple[str, tuple[int, int]]:
    """(what the model wrote, (input tokens, output tokens)) of a chat completion.

    Raises:
        Unanswered: a refusal, a stop by the content filter, or no chat completion at all.
    """
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        written, refusal = message.get("content"), message.get("refusal")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Unanswered("the reply is no chat completion", again=True) from None
    if ended == "content_filter" or refusal:
        raise Unanswered(f"the model refuses: {refusal or 'content filter'}")
    if not isinstance(written, str | None):
        raise Unanswered("the reply is no chat completion", again=True)
    usage = reply.get("usage") if isinstance(reply.get("usage"), dict) else {}
    read, wrote = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return written or "", (read if type(read) is int else 0, wrote if type(wrote) is int else 0)


# ---- a refusal ----

_MISSING_MODEL = ("model_not_found", "invalid_model")
_SETTINGS = ("temperature", "seed", "max_completion_tokens")
_FORM_WORDS = ("response_format", "json_schema", "json_object", "json schema", "structured output", "guided", "grammar")


def meaning(error: Exception, client: Any, model: str) -> Unanswered:
    """What an error of the `openai` package (or of the connection under it) means.

    Raises:
        UserError: every request would meet it. The error itself, if it comes from neither.
    """
    import httpx
    import openai

    if isinstance(error, Unanswered):
        return error
    if isinstance(error, openai.APIStatusError):
        return _status(error, client, model)
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
        return Unanswered(str(cause) or "no connection", again=True, nobody=True)
    if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
        return Unanswered("timed out", again=True)
    if isinstance(cause, httpx.UnsupportedProtocol | httpx.InvalidURL):
        raise UserError(unreachable(client, str(cause)))
    if isinstance(error, openai.APIConnectionError | httpx.TransportError):
        return Unanswered(f"the connection broke ({type(cause).__name__})", again=True)
    raise error


def _status(error: Any, client: Any, model: str) -> Unanswered:
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
        return Unanswered(f"status {status}: {said}", again=True, wait=_retry_after(error.response.headers))
    if status in (400, 422) and error.param in _SETTINGS:
        raise UserError(f"endpoint {where}: model {model!r} takes no such {error.param} ({said}); set it to None")
    told = f"{error.param} {said}".lower()
    other_form = status in (400, 422) and any(word in told for word in _FORM_WORDS)
    return Unanswered(f"status {status}: {said}", other_form=other_form)


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
    """An address without any user name and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
