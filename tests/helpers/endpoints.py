"""A server that speaks as OpenAI's API does, and says what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], Any]
"""Status, headers, body: JSON, or text as it is."""


class Endpoint:
    """Answers requests with what `reply` makes of them; without it with `script`, one after the other."""

    def __init__(self, reply: Callable[[dict[str, Any]], Reply] | None = None) -> None:
        self.script: list[Reply] = []
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.seen.append((self.path, dict(self.headers), sent))
                status, headers, body = endpoint.script.pop(0) if reply is None else reply(sent)
                raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@contextmanager
def listening(reply: Callable[[dict[str, Any]], Reply] | None = None) -> Iterator[Endpoint]:
    """An endpoint on a free port while inside."""
    made = Endpoint(reply)
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


def said(text: str, reason: str = "stop") -> dict[str, Any]:
    """A chat completion of ten tokens read and four written."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 4}}
