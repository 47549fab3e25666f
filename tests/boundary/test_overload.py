"""What is over a limit is refused before any work, with when to come again; one caller cannot starve another."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from auditor.clients import unary
from auditor.config import Retries
from common.boundary.identities import Identity, Role
from common.errors import Overloaded
from common.rpc.admission import Admission
from common.rpc.client import open_channel, remote_errors
from common.rpc.limits import CallLimits
from tests.boundary.instant import Instant, Rpc, instant_services, rpcs

AUDITOR, SHOP = Identity(Role.AUDITOR), Identity(Role.APPLICATION, "shop")


def rpc_of(path: str) -> Rpc:
    return next(rpc for rpc in rpcs() if rpc.path.endswith(path))


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_callers_rate_is_its_own_and_the_hint_is_when_the_next_call_may_begin() -> None:
    clock = Clock()
    admission = Admission(CallLimits(calls_per_second=4, burst=2), clock)
    for _ in range(2):
        admission.enter(SHOP)
    with pytest.raises(Overloaded) as refused:
        admission.enter(SHOP)
    assert refused.value.retry_seconds == pytest.approx(0.25)
    admission.enter(AUDITOR)
    clock.now += refused.value.retry_seconds
    admission.enter(SHOP)
    with pytest.raises(Overloaded):
        admission.enter(SHOP)


def test_one_callers_calls_under_way_leave_room_for_the_others() -> None:
    admission = Admission(CallLimits(concurrent_calls=3, concurrent_calls_per_caller=2))
    for _ in range(2):
        admission.enter(SHOP)
    with pytest.raises(Overloaded, match="application/shop has 2 calls under way"):
        admission.enter(SHOP)
    admission.enter(AUDITOR)
    with pytest.raises(Overloaded, match="3 calls are under way"):
        admission.enter(AUDITOR)
    admission.leave(SHOP)
    admission.enter(AUDITOR)


async def test_overload_is_resource_exhausted_with_a_retry_hint_and_health_still_answers(tmp_path: Path) -> None:
    """Streams count until their end, and gRPC's own retries get through once one has ended."""
    limits = CallLimits(concurrent_calls_per_caller=1)
    async with instant_services(tmp_path, limits=limits) as services, _student(services) as channel:
        stream = await _held_stream(services, channel)
        bare = grpc.aio.secure_channel(
            services.targets[Role.STUDENT], _credentials(services), options=[("grpc.enable_retries", 0)]
        )
        async with bare:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await rpc_of("StudentService/GetStatus").call(bare)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]  # an AioRpcError has what is read
        hint = error_details_pb2.RetryInfo()
        assert status is not None
        assert any(detail.Unpack(hint) for detail in status.details)
        assert hint.retry_delay.ToMilliseconds() == 1_000
        assert dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)  # type: ignore[attr-defined]
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

        waiting = asyncio.create_task(rpc_of("StudentService/GetStatus").call(channel))
        services.flowing.set()
        assert [response async for response in stream]
        await waiting


async def test_the_auditor_waits_for_an_overloaded_peer_as_long_as_it_asks_for() -> None:
    tries: list[float] = []
    loop = asyncio.get_running_loop()

    async def call(refusals: int) -> str:
        tries.append(loop.time())
        if len(tries) <= refusals:
            raise Overloaded("too many", retry_seconds=0.2)
        return "answer"

    retries = Retries(attempts=3, first_wait_seconds=0.001, longest_wait_seconds=0.001)
    assert await unary(partial(call, 2), retries) == "answer"
    assert all(later - earlier >= 0.19 for earlier, later in pairwise(tries))
    tries.clear()
    with pytest.raises(Overloaded):
        await unary(partial(call, 3), retries)
    assert len(tries) == 3


async def test_a_message_over_the_size_limit_is_refused_for_good(tmp_path: Path) -> None:
    async with instant_services(tmp_path) as services:
        tls = services.certificate(Role.AUDITOR)
        large = open_channel(services.targets[Role.STUDENT], tls=tls, expects=Role.STUDENT, max_message_mib=64)
        async with large as channel:
            answer = rpc_of("StudentService/Answer")
            request = answer.request
            request.request_id = "x" * (33 << 20)
            with pytest.raises(Exception, match="larger than max") as refused, remote_errors():
                await answer.call(channel, request)
            assert not isinstance(refused.value, Overloaded)
            assert services.reached.total() == 0


def _student(services: Instant) -> grpc.aio.Channel:
    return open_channel(services.targets[Role.STUDENT], tls=services.certificate(Role.AUDITOR), expects=Role.STUDENT)


def _credentials(services: Instant) -> grpc.ChannelCredentials:
    tls = services.certificate(Role.AUDITOR)
    return grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes())


async def _held_stream(services: Instant, channel: grpc.aio.Channel) -> grpc.aio.UnaryStreamCall[object, object]:
    """A stream that is under way until `flowing` is set."""
    answer = rpc_of("StudentService/Answer")
    services.flowing.clear()
    stub = channel.unary_stream(
        answer.path,
        request_serializer=type(answer.request).SerializeToString,
        response_deserializer=type(answer.response).FromString,
    )
    stream = stub(answer.request, timeout=30)
    await stream.initial_metadata()
    return stream
