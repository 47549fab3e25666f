"""Writes down, in clear, what a service receives and sends: the interceptors stand above TLS.

Each direction is one file, outside of every service's folder: a line with the method, then metadata and message as
they went over the wire. entry.py installs this before a service starts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc


class Recorder:
    """One file a direction, written through at once: a killed service leaves all it had."""

    def __init__(self, folder: Path, service: str) -> None:
        self._files = {kind: (folder / f"{service}.{kind}").open("ab", buffering=0) for kind in KINDS}

    def note(self, kind: str, method: str, data: bytes, metadata: Iterable[tuple[str, str | bytes]] = ()) -> None:
        head = "".join(f" {key}={value!r}" for key, value in metadata)
        self._files[kind].write(f"\n{method}{head}\n".encode() + data)


RECEIVED, SENT, ANSWERED = "received", "sent", "answered"
KINDS = (RECEIVED, SENT, ANSWERED)


class ServerSide(grpc.aio.ServerInterceptor):
    """Requests before they are parsed, answers once they are serialized."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        metadata = tuple(handler_call_details.invocation_metadata or ())
        read, write = handler.request_deserializer, handler.response_serializer

        def received(data: bytes) -> Any:
            self._recorder.note(RECEIVED, method, data, metadata)
            return read(data) if read else data

        def answered(message: Any) -> bytes:
            data = write(message) if write else message
            self._recorder.note(ANSWERED, method, data)
            return bytes(data)

        return handler._replace(request_deserializer=received, response_serializer=answered)


class _UnaryOut(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        self._recorder.note(SENT, _method(details), request.SerializeToString(), details.metadata or ())
        return await continuation(details, request)


class _StreamOut(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        self._recorder.note(SENT, _method(details), request.SerializeToString(), details.metadata or ())
        return await continuation(details, request)


def _method(details: Any) -> str:
    return details.method.decode() if isinstance(details.method, bytes) else str(details.method)


def record(folder: Path, service: str) -> None:
    """From now on, every server and channel that this process makes is recorded. They stand nearest to the wire."""
    recorder = Recorder(folder, service)
    server, plain, secure = grpc.aio.server, grpc.aio.insecure_channel, grpc.aio.secure_channel

    def recorded_server(*, interceptors: Any = (), **options: Any) -> Any:
        return server(interceptors=[ServerSide(recorder), *(interceptors or ())], **options)

    def recorded(made: Callable[..., Any]) -> Callable[..., Any]:
        def channel(*arguments: Any, interceptors: Any = (), **options: Any) -> Any:
            ours = [_UnaryOut(recorder), _StreamOut(recorder)]
            return made(*arguments, interceptors=[*(interceptors or ()), *ours], **options)

        return channel

    # Its type says that it takes five arguments by position; nobody gives one so.
    grpc.aio.server = recorded_server  # type: ignore[assignment]
    grpc.aio.insecure_channel = recorded(plain)
    grpc.aio.secure_channel = recorded(secure)
