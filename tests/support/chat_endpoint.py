"""An OpenAI-compatible endpoint of few words, on a real port: it stands for a hosted model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ChatEndpoint:
    """say: what the model answers to the last message of a request. Notes what it received, and with which key."""

    say: Callable[[str], str]
    # Requests still to be refused, each with this status.
    failures: list[int] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    base_url: str = ""

    def answer(self, body: bytes, key: str) -> tuple[int, dict[str, Any]]:
        self.requests.append(json.loads(body))
        self.keys.append(key)
        if self.failures:
            status = self.failures.pop(0)
            return status, {"error": {"message": "not now", "type": "scripted"}}
        message = {"role": "assistant", "content": self.say(self.requests[-1]["messages"][-1]["content"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "scripted", "choices": [choice]}


@contextmanager
def chat_endpoint(say: Callable[[str], str], failures: list[int] | None = None) -> Iterator[ChatEndpoint]:
    """Serves /v1/chat/completions on a free port."""
    endpoint = ChatEndpoint(say, failures or [])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, content = endpoint.answer(body, self.headers.get("Authorization", ""))
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing among what a test prints."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
