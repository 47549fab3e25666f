"""What Prometheus sees of calls: every end under its own code, no label from strangers, nothing missing at first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from common.config import ServiceConfig
from common.contract.seal.v1 import teacher_pb2, teacher_pb2_grpc
from common.errors import NotFound
from common.rpc.client import open_channel
from common.rpc.server import running

SERVICE = "seal.v1.TeacherService"


class Servicer(teacher_pb2_grpc.TeacherServiceServicer):
    """Ends as the request id says; `started` tells that a call which waits has begun."""

    def __init__(self) -> None:
        self.started = asyncio.Event()

    async def SetPolicy(self, request: Any, context: Any) -> teacher_pb2.SetPolicyResponse:
        if request.request_id == "missing":
            raise NotFound("not here")
        if request.request_id == "defect":
            raise ZeroDivisionError
        return teacher_pb2.SetPolicyResponse()

    async def Learn(self, request: Any, context: Any) -> AsyncIterator[teacher_pb2.LearnResponse]:
        for _ in range(3):
            yield teacher_pb2.LearnResponse()
        if request.request_id == "wait":
            self.started.set()
            await asyncio.Event().wait()

    async def GetStatus(self, request: Any, context: Any) -> teacher_pb2.TeacherServiceGetStatusResponse:
        self.started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def ProposeEdits(self, request: Any, context: Any) -> AsyncIterator[teacher_pb2.ProposeEditsResponse]:
        yield teacher_pb2.ProposeEditsResponse()

    async def ListPolicies(self, request: Any, context: Any) -> teacher_pb2.ListPoliciesResponse:
        return teacher_pb2.ListPoliciesResponse()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[teacher_pb2_grpc.TeacherServiceAsyncStub, Servicer, grpc.aio.Channel]]:
    """All calls have ended, and are counted, once this is left."""
    servicer = Servicer()
    async with (
        running(
            ServiceConfig(listen="127.0.0.1:0", grace_seconds=1),
            service=SERVICE,
            add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(servicer, server),
        ) as server,
        open_channel(server.target) as channel,
    ):
        yield teacher_pb2_grpc.TeacherServiceStub(channel), servicer, channel


def counted(name: str, **labels: str) -> Callable[[], float]:
    """How much a sample grew since now."""
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    return lambda: (REGISTRY.get_sample_value(name, labels) or 0.0) - before


def handled(method: str, code: str, grpc_type: str = "unary", service: str = SERVICE) -> Callable[[], float]:
    labels = {"grpc_type": grpc_type, "grpc_service": service, "grpc_method": method, "grpc_code": code}
    return counted("grpc_server_handled_total", **labels)


@pytest.mark.parametrize(("request_id", "code"), [("", "OK"), ("missing", "NOT_FOUND"), ("defect", "INTERNAL")])
async def test_a_unary_call_is_counted_under_the_code_its_caller_got(request_id: str, code: str) -> None:
    labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "SetPolicy"}
    ended, started = handled("SetPolicy", code), counted("grpc_server_started_total", **labels)
    received, sent = (counted(f"grpc_server_msg_{way}_total", **labels) for way in ("received", "sent"))
    timed = counted("grpc_server_handling_seconds_count", **labels)
    async with served() as (stub, _, _):
        with suppress(grpc.aio.AioRpcError):
            await stub.SetPolicy(teacher_pb2.SetPolicyRequest(request_id=request_id))
    assert (ended(), started(), received(), timed()) == (1, 1, 1, 1)
    assert sent() == (code == "OK")


async def test_a_streams_messages_are_counted_one_by_one() -> None:
    ended = handled("Learn", "OK", "server_stream")
    labels = {"grpc_type": "server_stream", "grpc_service": SERVICE, "grpc_method": "Learn"}
    sent = counted("grpc_server_msg_sent_total", **labels)
    async with served() as (stub, _, _):
        assert len([one async for one in stub.Learn(teacher_pb2.LearnRequest())]) == 3
    assert (ended(), sent()) == (1, 3)


async def test_a_caller_that_leaves_and_one_that_waited_too_long_are_told_apart() -> None:
    left, late = handled("Learn", "CANCELLED", "server_stream"), handled("GetStatus", "DEADLINE_EXCEEDED")
    async with served() as (stub, servicer, _):
        call = stub.Learn(teacher_pb2.LearnRequest(request_id="wait"))
        await servicer.started.wait()
        call.cancel()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetStatus(teacher_pb2.TeacherServiceGetStatusRequest(), timeout=0.5)
    assert (left(), late()) == (1, 1)


async def test_calls_under_way_are_seen_while_they_are() -> None:
    under_way = counted("seal_rpcs_in_flight", grpc_service=SERVICE, grpc_method="GetStatus")
    async with served() as (stub, servicer, _):
        call = stub.GetStatus(teacher_pb2.TeacherServiceGetStatusRequest())
        await servicer.started.wait()
        assert under_way() == 1
        call.cancel()
    assert under_way() == 0


async def test_methods_that_nobody_knows_share_one_label() -> None:
    ended = handled("unknown", "UNIMPLEMENTED", service="unknown")
    async with served() as (_, _, channel):
        for path in ("/seal.v1.TeacherService/Guess", "/evil.Service/0", "/grpc.guess/1", "/"):
            guess: Any = channel.unary_unary(path)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await guess(b"")
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert ended() == 4
    names = {s.labels["grpc_method"] for m in REGISTRY.collect() for s in m.samples if "grpc_method" in s.labels}
    assert not names & {"Guess", "0", "1"}


async def test_every_code_of_every_method_begins_at_zero() -> None:
    async with served():
        pass
    for method, grpc_type in (("ListPolicies", "unary"), ("ProposeEdits", "server_stream")):
        for code in grpc.StatusCode:
            labels = {"grpc_type": grpc_type, "grpc_service": SERVICE, "grpc_method": method, "grpc_code": code.name}
            assert REGISTRY.get_sample_value("grpc_server_handled_total", labels) is not None
