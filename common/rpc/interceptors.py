"""What stands between the wire and every servicer: deadlines, error mapping, logs.

A SealError becomes its status. Anything else is a defect: the caller gets INTERNAL with an incident id, the log gets
the traceback under the same id.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
import structlog
from grpc_status import rpc_status

from common.errors import Cancelled, Expired, Overloaded, SealError, TooMuch
from common.rpc.status import code_of, to_status

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every call of a server once."""

    def __init__(self, default_deadline_seconds: float) -> None:
        self._default_deadline = default_deadline_seconds
        self._log = structlog.get_logger("rpc")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or handler.request_streaming or method.startswith("/grpc."):
            return handler
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, method: str, call: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Any]:
        async def answer(request: Any, context: Context) -> Any:
            async with self._observed(method, context):
                return await call(request, context)

        return answer

    def _streaming(
        self, method: str, call: Callable[[Any, Context], AsyncIterator[Any]]
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._observed(method, context):
                async for response in call(request, context):
                    yield response

        return answer

    @asynccontextmanager
    async def _observed(self, method: str, context: Context) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds(context)):
                yield
        except TimeoutError:
            await refuse(context, Expired(f"{method} did not finish within its deadline"))
        except SealError as error:
            log = self._log.debug if isinstance(error, Cancelled) else self._log.warning
            log("refused", **{**error.ids, "method": method, "code": code_of(error).name, "reason": error.reason})
            await refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the RPC boundary: a defect must not end the service
            incident = uuid.uuid4().hex
            self._log.exception("defect", method=method, incident=incident, error=type(error).__name__)
            await refuse(context, SealError(f"internal error; see the service's log for {incident}"))

    def _seconds(self, context: Context) -> float:
        remaining = context.time_remaining()
        return self._default_deadline if remaining is None else min(remaining, self._default_deadline)


async def refuse(context: Context, error: SealError) -> NoReturn:
    """Ends a call with the status that stands for `error`. An overloaded service says when gRPC may try again."""
    status = rpc_status.to_status(to_status(error))
    metadata = tuple(status.trailing_metadata or ())
    if isinstance(error, TooMuch):
        # https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback; negative: never
        pushback = round(error.retry_seconds * 1_000) if isinstance(error, Overloaded) else -1
        metadata = (*metadata, ("grpc-retry-pushback-ms", str(pushback)))
    await context.abort(status.code, status.details, metadata)
    raise AssertionError("abort returned")
