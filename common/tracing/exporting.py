"""Sets a service's tracing up, and sends its spans away: on a thread of its own, in batches, over OTLP/gRPC.

A collector that is slow, dead or refuses costs a warning and the spans, never a call or a run: the queue is bounded,
and shutdown waits two seconds for it at most. common/rpc/server.py calls `start_tracing`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from common.errors import InvalidConfig
from common.tracing.settings import TracingSettings
from common.tracing.spans import CURRENT, NAMED, Tracing

if TYPE_CHECKING:
    from grpc import ChannelCredentials
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.id_generator import IdGenerator

LAST_SPANS_SECONDS = 2.0


def start_tracing(settings: TracingSettings, service: str) -> Callable[[], Awaitable[None]]:
    """Makes `span` work for what this task does and starts from now on. Returns what ends it.

    service: as in seal.v1.TeacherService. Raises InvalidConfig.
    """
    if not settings.endpoint:
        return _nothing
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError:
        raise InvalidConfig("tracing.endpoint: needs the extra: pip install 'seal-services[tracing]'") from None
    exporter = _exporter(settings)
    usual = "seal-" + service.rpartition(".")[2].removesuffix("Service").lower()
    ratio = TraceIdRatioBased(settings.sample_ratio)
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: settings.service_name or usual}),
        sampler=ParentBased(ratio),
        id_generator=_ids(),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=settings.max_queued_spans))
    before = CURRENT.get()
    CURRENT.set(Tracing(provider.get_tracer("seal"), ratio))

    async def stop() -> None:
        CURRENT.set(before)
        await asyncio.to_thread(_shut_down, provider, exporter)

    return stop


async def _nothing() -> None:
    return None


def _shut_down(provider: TracerProvider, exporter: SpanExporter) -> None:
    """Sends what is left. A collector that does not answer is not waited for, nor is the thread that waits for it."""
    last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
    last.start()
    last.join(LAST_SPANS_SECONDS)
    if last.is_alive():
        exporter.shutdown()


def _ids() -> IdGenerator:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random ids, but for the first span of a trace that has a name."""

        def generate_trace_id(self) -> int:
            named = NAMED.get()
            return named.trace_id if named else super().generate_trace_id()

        def generate_span_id(self) -> int:
            named = NAMED.get()
            return named.span_id if named else super().generate_span_id()

    return Ids()


def _exporter(settings: TracingSettings) -> SpanExporter:
    """OTLP over gRPC that warns once when spans are lost, and says when they arrive again."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

    # It says so with every batch, in words of its own.
    for library in ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    log = structlog.get_logger("tracing")

    class Exporter(OTLPSpanExporter):
        lost = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            if result is SpanExportResult.SUCCESS and self.lost:
                log.info("spans arrive again", endpoint=settings.endpoint, lost=self.lost)
                self.lost = 0
            elif result is not SpanExportResult.SUCCESS:
                if not self.lost:
                    log.warning("the collector takes no spans; they are dropped", endpoint=settings.endpoint)
                self.lost += len(spans)
            return result

    credentials = _credentials(settings)
    return Exporter(
        endpoint=settings.endpoint,
        insecure=credentials is None,
        credentials=credentials,
        timeout=settings.timeout_seconds,
    )


def _credentials(settings: TracingSettings) -> ChannelCredentials | None:
    import grpc

    if settings.ca is None:
        return None
    ca, key, certificate = (
        _read(f"tracing.{name}", file)
        for name, file in (("ca", settings.ca), ("key", settings.key), ("certificate", settings.certificate))
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _read(key: str, file: Path | None) -> bytes | None:
    try:
        return file.read_bytes() if file is not None else None
    except OSError as error:
        raise InvalidConfig(f"{key}: {file}: {error.strerror}") from None
