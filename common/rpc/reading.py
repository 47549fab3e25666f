"""Turns bytes into requests, behind everything that turns callers away, and checks what the table cannot say.

What always holds: nobody's bytes are parsed before their sender may call the method and is within its limits. Bytes
that are no message are refused as any other bad request: left to itself gRPC answers UNKNOWN and logs a traceback.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from common.boundary.identities import Identity
from common.boundary.request_rules import REQUESTS, RESPONSES
from common.errors import InvalidRequest, NotAllowed, Violation
from common.rpc.caller import caller
from common.rpc.wrapping import Context, unseen
from common.tracing.server import note_request


class ReadingInterceptor(grpc.aio.ServerInterceptor):
    """The innermost. Interceptors around it see requests as bytes."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or handler.request_streaming or method.startswith("/grpc."):
            return handler
        read = _reading(method, handler.request_deserializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _streaming(method, read, handler.unary_stream), None, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            _unary(method, read, handler.unary_unary), None, handler.response_serializer
        )


def check_request(identity: Identity, method: str, request: Any) -> None:
    """Raises NotAllowed unless the identity may send this request to a method that it may call."""
    reason, rule = REQUESTS.get((identity.role, method), ("", None))
    wrong = rule(request) if rule is not None else ""
    if wrong:
        raise NotAllowed(f"{identity} {wrong}", reason=reason, ids={"identity": str(identity), "method": method})


def _reading(method: str, parse: Callable[[bytes], Message]) -> Callable[[bytes], Message]:
    def read(data: bytes) -> Message:
        try:
            request = parse(data)
        except DecodeError:
            reason = f"its {len(data)} bytes are no message of this method; was it made from the same contract?"
            raise InvalidRequest([Violation("request", reason)]) from None
        note_request(request)
        check_request(caller(), method, request)
        return request

    return read


def _shown(method: str) -> Callable[[Any], None]:
    return RESPONSES.get((caller().role, method), unseen)


def _unary(
    method: str, read: Callable[[bytes], Any], call: Callable[[Any, Context], Awaitable[Any]]
) -> Callable[[bytes, Context], Any]:
    async def answer(data: bytes, context: Context) -> Any:
        response = await call(read(data), context)
        _shown(method)(response)
        return response

    return answer


def _streaming(
    method: str, read: Callable[[bytes], Any], call: Callable[[Any, Context], AsyncIterator[Any]]
) -> Callable[[bytes, Context], AsyncIterator[Any]]:
    async def answer(data: bytes, context: Context) -> AsyncIterator[Any]:
        shown = _shown(method)
        async for response in call(read(data), context):
            shown(response)
            yield response

    return answer
