"""Who connects and then says nothing takes nothing from the others, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.certificates import Authority
from common.boundary.identities import Role
from common.config import ServiceConfig
from common.contract.seal.v1 import teacher_pb2
from common.errors import Overloaded
from common.rpc import server
from common.rpc.client import remote_errors
from common.rpc.interceptors import refuse
from common.rpc.limits import CallLimits
from common.rpc.server import HEALTH_STREAMS, running
from common.rpc.status import MOST_RETRY_SECONDS
from common.tls.settings import TlsSettings

SERVICE = teacher_pb2.DESCRIPTOR.services_by_name["TeacherService"].full_name
CALL = f"/{SERVICE}/GetStatus"


def stalled(channel: grpc.aio.Channel, ended: asyncio.Event) -> Any:
    """A call whose request never comes."""

    async def nothing() -> AsyncIterator[bytes]:
        await ended.wait()
        yield b""

    call: Any = channel.stream_unary(CALL)
    return call(nothing(), timeout=60)


async def serving(target: str, *, pool: int) -> bool:
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", pool)]) as channel:
        return await _healthy(channel)


async def _healthy(channel: grpc.aio.Channel) -> bool:
    health: Any = health_pb2_grpc.HealthStub(channel)
    try:
        return bool(await health.Check(health_pb2.HealthCheckRequest(), timeout=2))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        return False


async def test_a_connection_holds_open_so_many_calls_and_no_more() -> None:
    limits = CallLimits(concurrent_calls_per_caller=2)
    ended = asyncio.Event()
    config = ServiceConfig(listen="127.0.0.1:0", limits=limits, grace_seconds=0)
    async with running(config, service=SERVICE, add=_add) as at, grpc.aio.insecure_channel(at.target) as channel:
        assert await _healthy(channel)
        held = [stalled(channel, ended) for _ in range(2 + HEALTH_STREAMS)]
        while await _healthy(channel):  # until the last of them has reached the service
            pass
        assert await serving(at.target, pool=1)
        for call in held:
            call.cancel()


async def test_a_call_that_never_begins_ends_with_its_connection() -> None:
    """Two seconds of connection and half a second for calls: by then every call's own deadline has passed."""
    limits = CallLimits(connection_seconds=2)
    config = ServiceConfig(listen="127.0.0.1:0", limits=limits, default_deadline_seconds=0.5, grace_seconds=0)
    ended = asyncio.Event()
    async with running(config, service=SERVICE, add=_add) as at, grpc.aio.insecure_channel(at.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as over:
            await asyncio.wait_for(stalled(channel, ended), 20)
        assert over.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_who_shows_no_certificate_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.HANDSHAKE_MS <= 20_000
    monkeypatch.setattr(server, "HANDSHAKE_MS", 300)
    tls = TlsSettings.of_folder(Authority.create().issue(tmp_path, Role.TEACHER))
    async with running(ServiceConfig(listen="127.0.0.1:0", tls=tls), service=SERVICE, add=_add) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_a_peer_that_asks_to_be_left_alone_for_a_year_is_asked_again_soon() -> None:
    async def busy(_: object, context: Any) -> bytes:
        await refuse(context, Overloaded("busy", retry_seconds=365 * 86_400))

    def add(made: grpc.aio.Server) -> None:
        read = teacher_pb2.TeacherServiceGetStatusRequest.FromString
        handlers: dict[str, Any] = {"GetStatus": grpc.unary_unary_rpc_method_handler(busy, read)}
        made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("peer", handlers),))

    config = ServiceConfig(listen="127.0.0.1:0")
    no_retries = [("grpc.enable_retries", 0)]
    async with (
        running(config, service=SERVICE, add=add) as at,
        grpc.aio.insecure_channel(at.target, options=no_retries) as channel,
    ):
        call: Any = channel.unary_unary("/peer/GetStatus")
        with pytest.raises(Overloaded) as refused, remote_errors():
            await call(b"", timeout=10)
    assert refused.value.retry_seconds == MOST_RETRY_SECONDS


def _add(made: grpc.aio.Server) -> None:
    """Answers at once, if it is ever asked."""

    async def answer(_: bytes, __: Any) -> bytes:
        return b""

    handlers: dict[str, Any] = {"GetStatus": grpc.unary_unary_rpc_method_handler(answer)}
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
