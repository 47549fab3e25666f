"""Prometheus metrics that every service has, and the port that serves them.

Names start with `seal_`; labels are few and bounded, never an id. A service declares its own metrics beside the actor
that moves them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from prometheus_client import Counter, Gauge, disable_created_metrics, start_http_server

# One series more for every counter and histogram, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call] # the library has no types here

READY = Gauge("seal_ready", "1 when the service answers its RPCs.")
PHASE_SECONDS = Counter("seal_phase_seconds", "Time spent in heavy phases.", ["phase"])
PHASE_WAIT_SECONDS = Counter("seal_phase_wait_seconds", "Time spent waiting for another heavy phase.", ["phase"])

CERTIFICATE_EXPIRY = Gauge(
    "seal_certificate_expiry_timestamp_seconds",
    "When the certificate in use, and the last of the authorities that it trusts, expire.",
    ["kind"],
)
CERTIFICATE_RELOAD_FAILURES = Counter(
    "seal_certificate_reload_failures",
    "Changed certificate files that could not be used; the last good ones were kept.",
)
BUILD_INFO = Gauge("seal_build_info", "1; the version of the software.", ["version"])
try:
    BUILD_INFO.labels(version("seal-services")).set(1)
except PackageNotFoundError:  # run from a folder that was never installed
    BUILD_INFO.labels("unknown").set(1)

# What was not measured yet: no comparison is true of it, so no alert fires, and no graph shows it as a low.
UNKNOWN = float("nan")
OTHER = "other"
SHOWN_DIGITS = 12


def shown(version_: str) -> str:
    """A version's or policy's digest as a label of an info metric."""
    return version_[:SHOWN_DIGITS]


def show_only(info: Gauge, value: str) -> None:
    """Makes `value` the label of an info metric's one series."""
    info.clear()
    info.labels(value).set(1)


class Bounded:
    """Values of a label that come from outside: the first `limit` of them as they are, the rest as `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= self._limit:
                return OTHER
            self._known.add(value)
        return value


@contextmanager
def queued(queue: Gauge) -> Iterator[Callable[[], None]]:
    """Counts one that waits, until it calls what it is given (from any thread), or leaves."""
    waiting = [None]
    queue.inc()

    def begins() -> None:
        if waiting:
            waiting.pop()
            queue.dec()

    try:
        yield begins
    finally:
        begins()


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
