"""The port for probes: health in plain text, to anybody, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.certificates import Authority
from cli.launcher.ports import free_port
from common.boundary.identities import Role
from common.config import ServiceConfig, resolve
from common.errors import InvalidConfig
from common.rpc.server import running
from common.tls.settings import TlsSettings
from tests.boundary.instant import SERVICES, Instant, rpcs, servicer_of

SERVICE = "seal.v1.TeacherService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_probes_are_answered_in_plain_text_as_on_the_services_own_port_and_no_rpc_is(tmp_path: Path) -> None:
    authority = Authority.create()
    tls = TlsSettings.of_folder(authority.issue(tmp_path, Role.TEACHER))
    servicer = servicer_of(Role.TEACHER, Instant(authority, tmp_path))
    target = f"127.0.0.1:{free_port()}"
    config = ServiceConfig(listen="127.0.0.1:0", health_listen=target, tls=tls)
    loading, loaded = asyncio.Event(), asyncio.Event()

    async def load() -> None:
        loading.set()
        await loaded.wait()

    async def serve(ended: asyncio.Event) -> None:
        async with running(
            config,
            service=SERVICE,
            add=lambda server: SERVICES[Role.TEACHER][2](servicer, server),
            start=load,
        ):
            await ended.wait()

    ended = asyncio.Event()
    service = asyncio.create_task(serve(ended))
    await loading.wait()
    async with grpc.aio.insecure_channel(target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest
        assert (await health.Check(request(service=""), timeout=5)).status == SERVING
        assert (await health.Check(request(service=SERVICE), timeout=5)).status == NOT_SERVING
        loaded.set()
        async for reply in health.Watch(request(service=SERVICE), timeout=20):
            if reply.status == SERVING:
                break
        for rpc in rpcs():
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await rpc.call(channel)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    ended.set()
    await service


async def test_a_taken_health_port_is_refused_by_name() -> None:
    target = f"127.0.0.1:{free_port()}"
    async with running(ServiceConfig(listen=target), service=SERVICE, add=lambda _: None):
        config = ServiceConfig(listen="127.0.0.1:0", health_listen=target)
        with pytest.raises(InvalidConfig, match=f"health_listen: cannot listen at {target}"):
            async with running(config, service=SERVICE, add=lambda _: None):
                pass


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "10.0.0.4:50051", "teacher:50051"])
def test_plain_text_never_leaves_the_machine(listen: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"tls: listen is .* takes mutual TLS"):
        resolve(ServiceConfig, "teacher", settings=[f"listen={listen!r}"])
    for local in ("127.0.0.1:0", "[::1]:0", "localhost:0", "127.8.8.8:0"):
        assert resolve(ServiceConfig, "teacher", settings=[f"listen={local!r}"]).tls is None
    files = [f"tls.{name}={tmp_path / name}" for name in ("certificate", "key", "ca")]
    assert resolve(ServiceConfig, "teacher", settings=[f"listen={listen!r}", *files]).tls is not None
