"""What Prometheus sees of calls: the metric names that gRPC libraries of other languages use, and dashboards expect.

Outermost of all interceptors, so that calls which another one turns away are counted as well. Methods that the allow
table does not name count as one, `unknown`: a stranger cannot make labels. Health and reflection are not measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from prometheus_client import Counter, Gauge, Histogram

from common.boundary.allow_table import RPCS
from common.rpc.wrapping import Context, wrapped

UNARY, SERVER_STREAM = "unary", "server_stream"
CALL = ("grpc_type", "grpc_service", "grpc_method")
STARTED = Counter("grpc_server_started", "Calls that began.", CALL)
HANDLED = Counter("grpc_server_handled", "Calls that ended, by status code.", [*CALL, "grpc_code"])
RECEIVED = Counter("grpc_server_msg_received", "Messages that callers sent.", CALL)
SENT = Counter("grpc_server_msg_sent", "Messages that callers were sent.", CALL)
SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "Time of calls, from first byte to status.",
    CALL,
    buckets=(0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 300, 1800, 7200),
)
IN_FLIGHT = Gauge("seal_rpcs_in_flight", "gRPC calls under way.", ["grpc_service", "grpc_method"])


@dataclass(frozen=True)
class Call:
    """The labels of one call."""

    grpc_type: str
    grpc_service: str
    grpc_method: str

    @classmethod
    def of(cls, path: str, *, streams: bool) -> Call:
        """`path` is /package.Service/Method."""
        service, _, method = path.removeprefix("/").partition("/") if path in RPCS else ("unknown", "", "unknown")
        return cls(SERVER_STREAM if streams else UNARY, service, method)

    @property
    def labels(self) -> tuple[str, str, str]:
        return (self.grpc_type, self.grpc_service, self.grpc_method)

    @contextmanager
    def measured(self, context: Context) -> Iterator[None]:
        """Counts one call from its start to its status."""
        started = time.monotonic()
        in_flight = IN_FLIGHT.labels(self.grpc_service, self.grpc_method)
        STARTED.labels(*self.labels).inc()
        RECEIVED.labels(*self.labels).inc()
        in_flight.inc()
        code = grpc.StatusCode.UNKNOWN
        try:
            yield
            code = _code(context)
        except (asyncio.CancelledError, GeneratorExit):  # the latter where a stream's caller left between messages
            late = _late(context.time_remaining(), time.monotonic() - started)
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except Exception:  # abort's own, and what sending a status to a caller who has left may raise
            code = _code(context, otherwise=code)
            raise
        finally:
            in_flight.dec()
            HANDLED.labels(*self.labels, code.name).inc()
            SECONDS.labels(*self.labels).observe(time.monotonic() - started)


class MeasuringInterceptor(grpc.aio.ServerInterceptor):
    """Measures every call of a server once. `service` is its full name, as seal.v1.TeacherService."""

    def __init__(self, service: str) -> None:
        _begin_at_zero(service)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        path = str(handler_call_details.method)
        if handler is None:
            _not_there(Call.of(path, streams=False))
            return handler
        if handler.request_streaming or (path.startswith("/grpc.") and path in RPCS):
            return handler
        call = Call.of(path, streams=handler.response_streaming)

        @asynccontextmanager
        async def measured(_: Any, context: Context) -> AsyncIterator[Callable[[Any], None]]:
            with call.measured(context):
                yield lambda _: SENT.labels(*call.labels).inc()

        return wrapped(handler, measured)


def _late(remaining: float | None, elapsed: float) -> bool:
    """Whether a caller left as its time was up: the wire rounds a deadline up by 1 % at most, and a call travels."""
    return remaining is not None and remaining <= 0.05 + 0.011 * elapsed


def _code(context: Context, otherwise: grpc.StatusCode = grpc.StatusCode.OK) -> grpc.StatusCode:
    """The status that a servicer or interceptor set; `otherwise` if none did."""
    number = context.code()
    return next((code for code in grpc.StatusCode if number in (code, code.value[0])), otherwise)


def _not_there(call: Call) -> None:
    STARTED.labels(*call.labels).inc()
    HANDLED.labels(*call.labels, grpc.StatusCode.UNIMPLEMENTED.name).inc()


def _begin_at_zero(service: str) -> None:
    """Every method and code from the start: a counter that appears with its first error shows no increase."""
    unknown = Call.of("", streams=False)
    calls = [unknown]
    for path in RPCS:
        if path.startswith(f"/{service}/"):
            calls.append(Call.of(path, streams=_streams(service, path.rpartition("/")[2])))
    for call in calls:
        for counter in (STARTED, RECEIVED, SENT):
            counter.labels(*call.labels)
        for code in grpc.StatusCode:
            HANDLED.labels(*call.labels, code.name)


def _streams(service: str, method: str) -> bool:
    described = descriptor_pool.Default().FindServiceByName(service)
    return bool(described.methods_by_name[method].server_streaming)
