"""A local HTTP server that speaks chat completions, well or badly, as each test tells it."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One reply: after `delay` seconds `status` and `body`, or `cut` off half way, or `drip`ped for that long."""

    body: Any
    status: int = 200
    headers: dict = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    drip: float = 0.0


def written(text: Any, **choice: Any) -> dict:
    """A chat completion that says this text, or this object as JSON."""
    content = text if isinstance(text, str) else json.dumps(text)
    message = {"role": "assistant", "content": content, **choice.pop("message", {})}
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }  # fmt: skip


def refused(status: int, message: str, headers: dict | None = None, **error: Any) -> Reply:
    return Reply({"error": {"message": message, **error}}, status, headers or {})


@dataclass
class Server:
    """`url` to ask at; `requests` that have come, as objects; `most` that were under way at once."""

    url: str
    requests: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    under_way: int = 0
    most: int = 0


@contextlib.contextmanager
def serving(answer: Callable[[dict, int], Any]) -> Iterator[Server]:
    """A server on a free port. `answer(request, how many came before)` gives a `Reply` or a completion."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                count = len(state.requests)
                state.requests.append(request)
                state.paths.append(self.path)
                state.keys.append(self.headers.get("Authorization"))
                state.under_way += 1
                state.most = max(state.most, state.under_way)
            try:
                reply = answer(request, count)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send(reply if isinstance(reply, Reply) else Reply(reply))
            finally:
                with lock:
                    state.under_way -= 1

        def send(self, reply: Reply):
            time.sleep(reply.delay)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            end = time.monotonic() + reply.drip
            self.send_header("Content-Length", str(len(body) + (10_000 if reply.drip else 0)))
            self.end_headers()
            while time.monotonic() < end:
                self.wfile.write(b" ")
                time.sleep(0.01)
            self.wfile.write(body[: len(body) // 2] if reply.cut else body)
            self.close_connection = bool(reply.cut or reply.drip)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Server(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
