"""Prometheus metrics that every service has, and the port that serves them.

Names start with `seal_`; labels are few and bounded, never an id. A service declares its own metrics beside the actor
that moves them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import Counter, Gauge, disable_created_metrics, start_http_server

# One series more for every counter and histogram, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call] # the library has no types here

READY = Gauge("seal_ready", "1 when the service answers its RPCs.")
PHASE_SECONDS = Counter("seal_phase_seconds", "Time spent in heavy phases.", ["phase"])
PHASE_WAIT_SECONDS = Counter("seal_phase_wait_seconds", "Time spent waiting for another heavy phase.", ["phase"])


@contextmanager
def timed(phase: str) -> Iterator[None]:
    """Adds the time spent to seal_phase_seconds."""
    started = time.monotonic()
    try:
        yield
    finally:
        PHASE_SECONDS.labels(phase).inc(time.monotonic() - started)


class Closable(Protocol):
    """A running metrics endpoint."""

    def shutdown(self) -> None: ...


def serve_metrics(listen: str) -> Closable | None:
    """Serves /metrics at host:port on a thread of its own; None when `listen` is empty."""
    if not listen:
        return None
    host, _, port = listen.rpartition(":")
    server, _ = start_http_server(int(port), addr=host)
    return server
