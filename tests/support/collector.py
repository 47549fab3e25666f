"""An OTLP collector over real gRPC, in the test's process: keeps every span, and every byte that it got."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc


@dataclass(frozen=True)
class Spanned:
    """A span as it arrived."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    attributes: dict[str, Any]
    # Name and attributes.
    events: list[tuple[str, dict[str, Any]]]
    links: list[str]
    failed: str
    seconds: float


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.target = ""
        self.spans: list[Spanned] = []
        self.received = b""
        self._arrived = threading.Condition()

    def Export(self, request: Any, context: Any) -> pb.ExportTraceServiceResponse:
        with self._arrived:
            self.received += request.SerializeToString()
            for resource in request.resource_spans:
                service = plain(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [spanned(service, one) for one in scope.spans]
            self._arrived.notify_all()
        return pb.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Spanned]:
        return [span for span in self.spans if span.name == name]

    def until(self, name: str, seconds: float = 30.0) -> None:
        """Waits until a span of that name has arrived: they come in batches, every few seconds."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: bool(self.named(name)), seconds):
                raise TimeoutError(f"no span {name} arrived")

    def one(self, name: str) -> Spanned:
        (found,) = self.named(name)
        return found


def spanned(service: str, span: Any) -> Spanned:
    return Spanned(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=plain(span.attributes),
        events=[(event.name, plain(event.attributes)) for event in span.events],
        links=[link.trace_id.hex() for link in span.links],
        failed=span.status.message if span.status.code == 2 else "",
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def plain(attributes: Any) -> dict[str, Any]:
    def value(any_value: Any) -> Any:
        kind = any_value.WhichOneof("value")
        if kind == "array_value":
            return [value(one) for one in any_value.array_value.values]
        return getattr(any_value, kind)

    return {entry.key: value(entry.value) for entry in attributes}


@contextmanager
def collecting(credentials: grpc.ServerCredentials | None = None) -> Iterator[Collector]:
    """A collector on a free port, until the block ends."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    collector.target = f"127.0.0.1:{port}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()
