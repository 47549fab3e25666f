"""Tells the called service which span it works for: W3C traceparent in the call's metadata.

Only channels that were opened with `client_interceptors` do so, and only while a span is open.
https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from common.tracing.settings import TracingSettings
from common.tracing.spans import CURRENT

Details = grpc.aio.ClientCallDetails


def client_interceptors(settings: TracingSettings) -> Sequence[grpc.aio.ClientInterceptor]:
    """For a channel to another service; none where tracing is off."""
    return [_Unary(), _Streaming()] if settings.endpoint else []


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Details, request: Any) -> Any:
        return await continuation(_with_parent(details), request)


class _Streaming(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Callable[..., Any], details: Details, request: Any) -> Any:
        return await continuation(_with_parent(details), request)


def _with_parent(details: Details) -> Details:
    if CURRENT.get() is None:
        return details
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *carrier.items())
    return Details(
        method=details.method,
        timeout=details.timeout,
        metadata=metadata,
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )
