"""A `Chat` behind an OpenAI-compatible endpoint: a hosted service, or vLLM, SGLang, llama.cpp on your own machine.

    chat = Endpoint("qwen2.5-vl-72b", base_url="http://host:8000/v1", cache="answers")
    chat.ask(asks)      `chat.LlmRequest`s, many at a time
    chat.counts         {"asked": 12, "cached": 3, "retried": 1, ...}

Address and key are those of the `openai` package, OPENAI_BASE_URL and OPENAI_API_KEY, which arguments
override. The key is written nowhere. An error that every request would meet (wrong key, model or address) stops the
run with a `UserError`; an error of one request (its answer stays malformed, it keeps timing out) is its `ItemError`.
Read next: `chat.py`, `response_cache.py`, `rubrics.py`.
"""

import os
import time
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from macro.judges import llm_errors
from macro.judges.chat import Chat, LlmRequest, Turns, messages
from macro.utils import images as image_io
from macro.utils.errors import ItemError, UserError

# Response formats that a server may enforce, best first. A server that refuses one is sent the next.
FORMS = ("json_schema", "json_object", "text")


class Endpoint(Chat):
    """One model at one address.

    Args:
        model: its name at the endpoint.
        base_url, api_key: None for OPENAI_BASE_URL and OPENAI_API_KEY. Self-hosted servers often need no key.
        cache: folder of answers (`response_cache.py`); None keeps none.
        time_limit: seconds for one request, from its start to the answer's last byte.
        retries: how often a request is resent after a time-out, a broken connection, or status 408, 409, 429 or 5xx.
        max_repairs: how often a malformed answer is sent back.
        wait: seconds before the first retry, doubled for each further one up to `longest_wait`, minus up to half at
            random; a server's Retry-After is obeyed unless it is above `longest_wait`.
        threads: requests in flight at once.
        side: images with a longer side are scaled down to it, pixels.
        jpeg: sends images as JPEG (quality 95), a tenth of the bytes of PNG.
        temperature, max_tokens: None leaves them to the server.

    Raises:
        UserError: the `openai` package is missing, OpenAI's own service has no key, or an address is malformed.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        cache: str | os.PathLike | None = None,
        time_limit: int | float = 120.0,
        retries: int = 5,
        max_repairs: int = 2,
        wait: int | float = 1.0,
        longest_wait: int | float = 60.0,
        threads: int = 8,
        side: int = 1024,
        jpeg: bool = False,
        temperature: int | float | None = None,
        max_tokens: int | None = None,
    ):
        self._settings = {"temperature": temperature, "max_completion_tokens": max_tokens}
        super().__init__(
            model, {"model": model, "side": side, "jpeg": jpeg, **self._settings}, cache, max_repairs, threads
        )
        self._client, self._secrets = _connect(base_url, api_key, threads)
        self._time_limit, self._retries, self._wait, self._longest_wait = time_limit, retries, wait, longest_wait
        self._side, self._jpeg = side, jpeg
        self._form = 0
        self._free_at = 0.0  # monotonic time before which the server wants no request

    def _write(self, key: str, ask: LlmRequest, turns: Turns) -> str | ItemError:
        """The model's text; the request is resent as long as that may help."""
        # Random, so that many requests do not return at once, yet the same in every run.
        rng = np.random.default_rng([int(key[:12], 16), len(turns)])
        attempt = 0
        while True:
            time.sleep(max(0.0, self._free_at - time.monotonic()))
            form = self._form
            try:
                return self._sent(ask, turns, FORMS[form])
            except Exception as error:  # `llm_errors.meaning` raises errors of other origin again
                meant = llm_errors.meaning(error, self._client, self.model)
            if meant.other_form and form + 1 < len(FORMS):
                with self._lock:
                    self._form = max(self._form, form + 1)
                continue
            if not meant.again:
                return ItemError(self._clean(meant.reason))
            if meant.wait is not None and meant.wait > self._longest_wait:
                return ItemError(self._clean(f"{meant.reason}; the server asks for {meant.wait:g} s of patience"))
            if attempt == self._retries:
                if meant.nobody:
                    raise UserError(self._clean(llm_errors.unreachable(self._client, meant.reason)))
                return ItemError(self._clean(f"{meant.reason}, {attempt + 1} times"))
            backoff = min(self._longest_wait, self._wait * 2**attempt) * rng.uniform(0.5, 1)
            if meant.wait is not None:
                with self._lock:
                    self._free_at = max(self._free_at, time.monotonic() + meant.wait)
            self._count(retried=1)
            time.sleep(backoff)
            attempt += 1

    def _sent(self, ask: LlmRequest, turns: Turns, form: str) -> str:
        """One request. Raises what the `openai` package raises, or `llm_errors.Unanswered`."""
        self._count(asked=1)
        end = time.monotonic() + self._time_limit
        settings = {name: value for name, value in self._settings.items() if value is not None}
        if form != "text":
            settings["response_format"] = _promise(ask, form)
        body = bytearray()
        # Read in chunks: the package's own limit is on each silence, which a server can break for ever.
        with self._client.chat.completions.with_streaming_response.create(
            model=self.model,
            messages=messages(ask, turns, self._image),
            seed=ask.seed,
            timeout=self._time_limit,
            **settings,
        ) as response:
            for piece in response.iter_bytes():
                body += piece
                if time.monotonic() > end:
                    raise llm_errors.Unanswered("timed out", again=True)
        written, usage = llm_errors.content(bytes(body))
        self._count(tokens_in=usage[0], tokens_out=usage[1])
        return written

    def _image(self, pixels: image_io.Pixels) -> dict:
        pixels = image_io.shrink_to(pixels, self._side)
        url = image_io.data_uri(pixels, ".jpg" if self._jpeg else ".png")
        return {"type": "image_url", "image_url": {"url": url}}

    def _clean(self, message: str) -> str:
        """One line without the key, which servers tend to repeat."""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return " ".join(message.split())


def _promise(ask: LlmRequest, form: str) -> dict:
    if form == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": ask.schema}}


def _connect(base_url: str | None, api_key: str | None, threads: int) -> tuple[Any, list[str]]:
    """The package's client with its own retries switched off, and the secrets that must not be written anywhere."""
    try:
        import httpx
        import openai
    except ImportError:
        raise UserError(
            "the openai package is missing, by which language models are asked; pip install 'macro-compose[engine]'"
        ) from None
    base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
    api_key = api_key or os.environ.get("OPENAI_API_KEY") or None
    if base_url is not None and urlsplit(base_url).scheme not in ("http", "https"):
        raise UserError(f"endpoint {llm_errors.shown(base_url)}: is no address; it looks like http://host:8000/v1")
    if api_key is None and base_url is None:
        raise UserError(
            "no language model: set OPENAI_BASE_URL to a server of yours, or OPENAI_API_KEY for OpenAI's own"
        )
    limits = httpx.Limits(max_connections=threads, max_keepalive_connections=threads)
    client = openai.OpenAI(
        base_url=base_url,
        api_key=api_key or "none",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(limits=limits),
    )
    password = urlsplit(base_url or "").password
    return client, [secret for secret in (api_key, password) if secret]
