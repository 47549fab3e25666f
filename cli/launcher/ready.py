"""Asks a service whether it is ready, by the gRPC health protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.tls.credentials import channel_credentials
from common.tls.material import read_material
from common.tls.settings import TlsSettings

POLL_SECONDS = 0.25
CALL_SECONDS = 2.0


async def until_serving(target: str, health_name: str, tls: TlsSettings | None = None) -> None:
    """Returns once the service at `target` says SERVING. Asks for ever: the caller sets the limit."""
    serving = await is_serving(target, health_name, tls)
    while not serving:
        await asyncio.sleep(POLL_SECONDS)
        serving = await is_serving(target, health_name, tls)


async def is_serving(target: str, health_name: str, tls: TlsSettings | None = None) -> bool:
    """One question, with the service's own certificate where it has one. False too when nobody answers."""
    # A channel of its own each time: a kept one would back off for longer and longer while the service starts.
    async with _dial(target, tls) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stubs leave the methods out
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=health_name), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _dial(target: str, tls: TlsSettings | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target)
    material = read_material(tls)
    options = [("grpc.default_authority", material.identity.host(tls.trust_domain))]
    return grpc.aio.secure_channel(target, channel_credentials(material), options=options)
