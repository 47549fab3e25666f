"""The probe of the images' HEALTHCHECK against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from common.rpc.probe import main, probe

SERVICE = "seal.v1.AuditorService"


@pytest.fixture
def checks() -> health.HealthServicer:
    return health.HealthServicer()


@pytest.fixture
def target(checks: health.HealthServicer) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def code(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_a_service_that_loads_is_alive_and_not_ready(target: str, checks: health.HealthServicer) -> None:
    checks.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    assert code(target) == 0
    assert code(target, SERVICE) == 1
    checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    assert code(target, SERVICE) == 0


def test_an_unknown_service_and_a_closed_port_are_no_success(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(target, "seal.v1.NoService") == 1
    assert capsys.readouterr().out == "NOT_FOUND\n"
    assert probe("127.0.0.1:1", seconds=5) == "UNAVAILABLE"
