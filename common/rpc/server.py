"""Runs one service: health, reflection, interceptors, metrics, and a shutdown that lets calls end.

Health "" (liveness) answers from the start; the service's own name (readiness) is SERVING once its models are loaded.
At shutdown it turns NOT_SERVING, calls drain, then the service stops.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.config import ServiceConfig
from common.errors import InvalidConfig
from common.metrics import READY, serve_metrics
from common.rpc.admission import AdmissionInterceptor
from common.rpc.authorization import AuthorizationInterceptor
from common.rpc.health_port import serve_health
from common.rpc.interceptors import CallInterceptor
from common.rpc.measured import MeasuringInterceptor
from common.rpc.reading import ReadingInterceptor
from common.tls.credentials import server_credentials
from common.tls.reloading import Reloader
from common.tracing.exporting import start_tracing
from common.tracing.server import server_interceptors

Step = Callable[[], Awaitable[None]]
MIB = 1 << 20
HEALTH_STREAMS = 16
HANDSHAKE_MS = 20_000  # gRPC's 120 seconds are long for somebody who has shown no certificate


@dataclass(frozen=True)
class Running:
    """A server that answers. `target` is host:port as a client dials it."""

    target: str
    port: int


async def _nothing() -> None:
    return None


@asynccontextmanager
async def running(
    config: ServiceConfig,
    *,
    service: str,
    add: Callable[[grpc.aio.Server], None],
    start: Step = _nothing,
    stop: Step = _nothing,
) -> AsyncIterator[Running]:
    """A service from its first health answer to its last call.

    `start` loads models (liveness answers meanwhile); `stop` releases them after the last call.
    Raises InvalidConfig when the address cannot be had.
    """
    log = structlog.get_logger("server")
    reloader = Reloader(config.tls) if config.tls is not None else None
    server = grpc.aio.server(interceptors=_interceptors(config, service), options=_options(config))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
    add(server)
    if config.reflection:
        names = (service, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    port = _bind(server, config, reloader)
    async with AsyncExitStack() as after:
        after.callback(_metrics(config))
        after.push_async_callback(start_tracing(config.tracing, service))
        probes = await serve_health(config.health_listen, checks)
        if probes is not None:
            after.push_async_callback(probes.stop, None)
        if reloader is not None:
            after.callback(asyncio.create_task(_keep_fresh(reloader), name="certificates").cancel)
        else:
            log.warning("plain text on loopback: every caller is taken for the operator", listen=config.listen)
        await server.start()
        try:
            await start()
            await checks.set(service, health_pb2.HealthCheckResponse.SERVING)
            READY.set(1)
            log.info("serving", listen=config.listen, port=port)
            yield Running(f"{config.listen.rpartition(':')[0]}:{port}", port)
        finally:
            READY.set(0)
            await checks.enter_graceful_shutdown()
            await server.stop(config.grace_seconds)
            await stop()
    log.info("stopped")


def _interceptors(config: ServiceConfig, service: str) -> list[grpc.aio.ServerInterceptor]:
    """Outermost first: what is measured includes refusals, limits count who may call, and bytes are parsed last."""
    around = [
        *server_interceptors(config.tracing),
        MeasuringInterceptor(service),
        CallInterceptor(config.default_deadline_seconds),
    ]
    authorization = [AuthorizationInterceptor(config.tls.trust_domain)] if config.tls is not None else []
    return [*around, *authorization, AdmissionInterceptor(config.limits), ReadingInterceptor()]


def _bind(server: grpc.aio.Server, config: ServiceConfig, reloader: Reloader | None) -> int:
    try:
        if reloader is None:
            return server.add_insecure_port(config.listen)
        return server.add_secure_port(config.listen, server_credentials(reloader))
    except RuntimeError:
        raise InvalidConfig(f"listen: cannot listen at {config.listen}; is the port in use?") from None


def _metrics(config: ServiceConfig) -> Callable[[], None]:
    """Serves metrics; returns what ends that."""
    try:
        metrics = serve_metrics(config.metrics_listen)
    except OSError as error:
        raise InvalidConfig(f"metrics_listen: cannot listen at {config.metrics_listen}: {error.strerror}") from None
    return metrics.shutdown if metrics is not None else lambda: None


async def _keep_fresh(reloader: Reloader) -> None:
    """Looks at the files though nobody calls, so that metrics and log tell of a bad one in time."""
    while True:
        await asyncio.sleep(reloader.settings.reload_seconds)
        await asyncio.to_thread(lambda: reloader.current)


async def serve(
    config: ServiceConfig,
    *,
    service: str,
    add: Callable[[grpc.aio.Server], None],
    start: Step = _nothing,
    stop: Step = _nothing,
) -> None:
    """Runs a service until SIGTERM or SIGINT, which also end a start that is still under way."""
    stopping = asyncio.Event()
    starting = asyncio.current_task()

    def on_signal() -> None:
        stopping.set()
        if starting is not None:
            starting.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        async with running(config, service=service, add=add, start=start, stop=stop):
            starting = None
            await stopping.wait()
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise


def _options(config: ServiceConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_mib * MIB),
        ("grpc.max_send_message_length", config.max_message_mib * MIB),
        ("grpc.so_reuseport", 0),  # a second service on the same port must fail, not share it
        ("grpc.keepalive_permit_without_calls", 1),
        # Who keeps a connection must show a certificate again from time to time; calls under way end first.
        ("grpc.max_connection_age_ms", round(config.limits.connection_seconds * 1_000)),
        # No call may last longer; without this a stream that sends no request would keep its connection for ever.
        ("grpc.max_connection_age_grace_ms", round(config.default_deadline_seconds * 1_000)),
        # Admission sees a call when its request has come; until then this bounds what a connection may hold open.
        ("grpc.max_concurrent_streams", config.limits.concurrent_calls_per_caller + HEALTH_STREAMS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
