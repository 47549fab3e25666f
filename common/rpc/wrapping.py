"""Puts a check around a handler of any of gRPC's four kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]
Around = Callable[[Any, Context], AbstractAsyncContextManager[Callable[[Any], None]]]

KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def wrapped(handler: Any, around: Around) -> Any:
    """A handler that enters `around(request, context)` first. What that yields is shown every response before it goes.

    Where requests are a stream, `request` is the iterator.
    """
    name, made = KINDS[handler.request_streaming, handler.response_streaming]
    call = getattr(handler, name)

    async def unary(request: Any, context: Context) -> Any:
        async with around(request, context) as shown:
            response = await call(request, context)
            shown(response)
            return response

    async def streaming(request: Any, context: Context) -> AsyncIterator[Any]:
        async with around(request, context) as shown:
            async for response in call(request, context):
                shown(response)
                yield response

    answer = streaming if handler.response_streaming else unary
    return made(answer, handler.request_deserializer, handler.response_serializer)


def unseen(_: Any) -> None:
    """For checks that have nothing to do with responses."""
