"""Spans as the services write them: `with span("train", candidates=6):`, and `note` for what happens within one.

A span that fails is marked with the error's reason, never its words; texts among the attributes become their digests.
A trace may be named by what it is about (`root_of`), so that work which is taken up again after a restart goes on in
the same trace. With tracing off all of this does nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.canonical import digest_bytes, digest_of
from common.errors import SealError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import SpanContext, Tracer

IDENTIFIER = re.compile(r"[A-Za-z0-9_.:/@+-]{1,160}")
MOST_IN_A_LIST = 64

Scalar = str | bool | int | float
Figure = Scalar | Sequence[str] | Sequence[int] | Sequence[float] | None


@dataclass(frozen=True)
class Tracing:
    """One service's way to make spans; common/tracing/exporting.py sets it up."""

    tracer: Tracer
    sampler: Sampler


# Of the service that this task works for: tests have several in one process.
CURRENT: ContextVar[Tracing | None] = ContextVar("tracing", default=None)
# What the next root span is to be called; read by common/tracing/exporting.py.
NAMED: ContextVar[Root | None] = ContextVar("named_root", default=None)


@dataclass(frozen=True)
class Root:
    """The name of a trace and of its first span."""

    trace_id: int
    span_id: int


def root_of(*about: str | int) -> Root:
    """The same for the same content, in any process."""
    name = digest_of(["trace", *about]).sha256
    return Root(int(name[:32], 16), int(name[32:48], 16))


@contextmanager
def span(
    name: str, *, starts: Root | None = None, under: Root | None = None, links: Sequence[Root] = (), **figures: Figure
) -> Iterator[None]:
    """A span around the block, below the one that is open.

    starts: it is the first of that trace instead. under: it is below that trace's first span. links: traces that have
    to do with it.
    """
    tracing = CURRENT.get()
    if tracing is None:
        yield
        return
    from opentelemetry import trace
    from opentelemetry.context import Context

    parent = Context() if starts else _below(under, tracing) if under else None
    linked = [trace.Link(_place(link, tracing)) for link in links]
    naming = NAMED.set(starts)
    try:
        made = tracing.tracer.start_span(name, parent, links=linked, attributes=attributes("seal.", figures))
    finally:
        NAMED.reset(naming)
    with trace.use_span(made, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:
            made.set_status(trace.StatusCode.ERROR, why(error))
            raise


def note(name: str, **figures: Figure) -> None:
    """Something that happened within the open span."""
    if CURRENT.get() is not None:
        from opentelemetry import trace

        trace.get_current_span().add_event(name, attributes("seal.", figures))


def why(error: BaseException) -> str:
    """An error's reason, which is one of a fixed list, or else its class."""
    return error.reason if isinstance(error, SealError) else type(error).__name__


def attributes(prefix: str, figures: Mapping[str, Figure]) -> dict[str, Scalar | Sequence[Scalar]]:
    """Figures as a span takes them; of long lists the beginning."""
    found: dict[str, Scalar | Sequence[Scalar]] = {}
    for key, value in figures.items():
        if isinstance(value, str | bool | int | float):
            found[f"{prefix}{key}"] = harmless(value)
        elif value is not None:
            found[f"{prefix}{key}"] = tuple(harmless(one) for one in value[:MOST_IN_A_LIST])
    return found


def harmless(value: Scalar) -> Scalar:
    """The value; of a text that is not shaped like an id, its digest."""
    if not isinstance(value, str) or IDENTIFIER.fullmatch(value):
        return value
    return f"sha256:{digest_bytes(value.encode()).sha256}"


def _below(root: Root, tracing: Tracing) -> Context:
    from opentelemetry import trace
    from opentelemetry.context import Context

    return trace.set_span_in_context(trace.NonRecordingSpan(_place(root, tracing)), Context())


def _place(root: Root, tracing: Tracing) -> SpanContext:
    """A first span as others point at it; whether it is kept follows from its name."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace.sampling import Decision

    decision = tracing.sampler.should_sample(None, root.trace_id, "").decision
    kept = trace.TraceFlags.SAMPLED if decision is Decision.RECORD_AND_SAMPLE else trace.TraceFlags.DEFAULT
    flags = trace.TraceFlags(kept)
    return trace.SpanContext(root.trace_id, root.span_id, is_remote=True, trace_flags=flags)
