"""A span around every call of the contract, below the caller's span where it names one.

It says how the call ended, its request id and how many of everything the request holds; never what.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from common.rpc.wrapping import Context, unseen, wrapped
from common.tracing.settings import TracingSettings
from common.tracing.spans import CURRENT, Figure, attributes

CODES = {code.value[0]: code for code in grpc.StatusCode}


def server_interceptors(settings: TracingSettings) -> Sequence[grpc.aio.ServerInterceptor]:
    """To stand before all others; none where tracing is off."""
    return [TracingInterceptor()] if settings.endpoint else []


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Health and reflection are not traced."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or handler.request_streaming or method.startswith("/grpc."):
            return handler
        caller = {str(key): str(value) for key, value in handler_call_details.invocation_metadata or ()}

        @asynccontextmanager
        async def traced(_: Any, context: Context) -> AsyncIterator[Callable[[Any], None]]:
            with _traced(method, caller, context):
                yield unseen

        return wrapped(handler, traced)


@contextmanager
def _traced(method: str, caller: dict[str, str], context: Context) -> Iterator[None]:
    tracing = CURRENT.get()
    if tracing is None:
        yield
        return
    from opentelemetry import trace
    from opentelemetry.context import Context as Empty
    from opentelemetry.context import attach
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    service, _, rpc = method.removeprefix("/").partition("/")
    made = tracing.tracer.start_span(
        f"{service}/{rpc}",
        TraceContextTextMapPropagator().extract(caller, Empty()),
        kind=trace.SpanKind.SERVER,
        attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": rpc},
    )
    # Every call is a task of its own, so its context ends with it.
    attach(trace.set_span_in_context(made))
    code = grpc.StatusCode.OK
    try:
        yield
    except grpc.aio.AbortError:
        code = _aborted_with(context)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        code = grpc.StatusCode.CANCELLED
        raise
    except Exception:
        code = grpc.StatusCode.UNKNOWN
        raise
    finally:
        made.set_attribute("rpc.grpc.status_code", int(code.value[0]))
        if code is not grpc.StatusCode.OK:
            made.set_status(trace.StatusCode.ERROR, code.name)
        made.end()


def note_request(request: Message) -> None:
    """Adds what the request holds to its call's span, once somebody has read it; a refused call's stays unread."""
    if CURRENT.get() is None:
        return
    from opentelemetry import trace

    trace.get_current_span().set_attributes(attributes("seal.request.", counts(request)))


def _aborted_with(context: Context) -> grpc.StatusCode:
    """grpc.aio gives the number that its annotation calls a StatusCode."""
    code: object = context.code()
    return code if isinstance(code, grpc.StatusCode) else CODES.get(cast("int", code), grpc.StatusCode.UNKNOWN)


def counts(request: Message) -> dict[str, Figure]:
    """Its size, the lengths of its lists, and its request id."""
    found: dict[str, Figure] = {"bytes": request.ByteSize()}
    for field, value in request.ListFields():
        if field.is_repeated:
            found[field.name] = len(value)
        elif field.name == "request_id" and field.type == FieldDescriptor.TYPE_STRING:
            found["id"] = value
    return found
