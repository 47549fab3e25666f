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
from common.rpc.wrapping import Context, unseen, wrapped


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
        return wrapped(handler, lambda _, context: self._observed(method, context))

    @asynccontextmanager
    async def _observed(self, method: str, context: Context) -> AsyncIterator[Callable[[Any], None]]:
        try:
            async with asyncio.timeout(self._seconds(context)):
                yield unseen
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
