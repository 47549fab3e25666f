"""A local HTTP server that speaks the chat completions protocol, from a script: stands for a hosted model.

It notes every request, how many were under way at once, and can be told to fail.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], str]


class Endpoint:
    """reply: what the model says to a request's body. statuses: for requests to come, before it answers again."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.statuses: list[int] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.most_at_once = 0
        self.seconds = 0.0
        self.base_url = ""
        self._under_way = 0
        self._lock = threading.Lock()

    def answer(self, body: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            self.bodies.append(body)
            self.keys.append(key)
            status = self.statuses.pop(0) if self.statuses else 200
        time.sleep(self.seconds)
        with self._lock:
            self._under_way -= 1
        if status != 200:
            return status, {"error": {"message": f"no: {json.dumps(body)}", "type": "scripted"}}
        message = {"role": "assistant", "content": self.reply(body)}
        return 200, {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        }


@contextmanager
def serving(reply: Reply) -> Iterator[Endpoint]:
    """The endpoint on a free port, until the block ends."""
    endpoint = Endpoint(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = endpoint.answer(body, self.headers.get("Authorization", ""))
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After-Ms", "1")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked(body: dict[str, Any]) -> dict[str, Any]:
    """What a judge's request asks about."""
    return dict(json.loads(body["messages"][1]["content"]))
