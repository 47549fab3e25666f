"""An OTLP collector that keeps every byte of the spans that it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@dataclass
class Collector:
    """`endpoint` is what services are told; `received` holds one serialized ExportTraceServiceRequest a batch."""

    endpoint: str
    received: list[bytes] = field(default_factory=list)


class _Export(grpc.GenericRpcHandler):
    def __init__(self, received: list[bytes]) -> None:
        self._received = received

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method != EXPORT:
            return None

        async def export(request: bytes, _: Any) -> bytes:
            self._received.append(request)
            return b""  # an empty ExportTraceServiceResponse: all of it was taken

        return grpc.unary_unary_rpc_method_handler(export)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    collector = Collector(f"127.0.0.1:{port}")
    server.add_generic_rpc_handlers((_Export(collector.received),))
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0)
