"""The way of a call: health, error mapping, deadlines, defects, clean shutdown."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.config import ServiceConfig
from common.contract.seal.v1 import teacher_pb2, teacher_pb2_grpc, types_pb2
from common.convert import from_proto
from common.errors import InvalidConfig, InvalidRequest, NotFound, SealError, StaleGeneration, TooMuch, Violation
from common.rpc.client import open_channel, remote_errors
from common.rpc.server import running
from common.types import Conversation

SERVICE = "seal.v1.TeacherService"


class Servicer(teacher_pb2_grpc.TeacherServiceServicer):
    """Raises what the request id says."""

    crowded = 0

    async def GetStatus(self, request: Any, context: Any) -> teacher_pb2.TeacherServiceGetStatusResponse:
        await asyncio.sleep(30)
        return teacher_pb2.TeacherServiceGetStatusResponse()

    async def SetPolicy(self, request: Any, context: Any) -> teacher_pb2.SetPolicyResponse:
        if request.request_id == "missing":
            raise NotFound("policy p1 is not here", reason="UNKNOWN_POLICY", ids={"policy": "p1"})
        if request.request_id == "stale":
            raise StaleGeneration("generation is 4")
        if request.request_id == "invalid":
            from_proto(Conversation, types_pb2.Conversation())
        if request.request_id == "many":
            raise InvalidRequest([Violation(f"kept[{i}].edit", "no such edit") for i in range(5_000)])
        if request.request_id == "long":
            raise NotFound("\U0001f92f" * 9_000, ids={f"id{i}": "\U0001f92f" * 9_000 for i in range(99)})
        if request.request_id == "crowded":
            self.crowded += 1
            raise TooMuch("this takes more memory than there is")
        if request.request_id == "defect":
            raise ZeroDivisionError("the passage says so")
        return teacher_pb2.SetPolicyResponse(policy_version=request.policy_version)

    async def Learn(self, request: Any, context: Any) -> AsyncIterator[teacher_pb2.LearnResponse]:
        yield teacher_pb2.LearnResponse()
        raise InvalidRequest([Violation("kept[0].reward", "too high"), Violation("seed", "negative")])

    async def ProposeEdits(self, request: Any, context: Any) -> AsyncIterator[teacher_pb2.ProposeEditsResponse]:
        yield teacher_pb2.ProposeEditsResponse()

    async def ListPolicies(self, request: Any, context: Any) -> teacher_pb2.ListPoliciesResponse:
        return teacher_pb2.ListPoliciesResponse()


@pytest.fixture
async def target() -> AsyncIterator[str]:
    async with running(
        ServiceConfig(listen="127.0.0.1:0"),
        service=SERVICE,
        add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(Servicer(), server),
    ) as server:
        yield server.target


@pytest.fixture
async def stub(target: str) -> AsyncIterator[teacher_pb2_grpc.TeacherServiceAsyncStub]:
    async with open_channel(target) as channel:
        yield teacher_pb2_grpc.TeacherServiceStub(channel)


async def test_error_arrives_as_the_exception_that_was_raised(stub: teacher_pb2_grpc.TeacherServiceAsyncStub) -> None:
    with pytest.raises(NotFound, match="policy p1 is not here") as missing, remote_errors():
        await stub.SetPolicy(teacher_pb2.SetPolicyRequest(request_id="missing"))
    assert (missing.value.reason, missing.value.ids) == ("UNKNOWN_POLICY", {"policy": "p1"})
    with pytest.raises(StaleGeneration), remote_errors():
        await stub.SetPolicy(teacher_pb2.SetPolicyRequest(request_id="stale"))


async def test_every_violation_of_a_broken_stream_is_named(stub: teacher_pb2_grpc.TeacherServiceAsyncStub) -> None:
    with pytest.raises(InvalidRequest) as refused, remote_errors():
        async for _ in stub.Learn(teacher_pb2.LearnRequest()):
            pass
    assert [(v.path, v.reason) for v in refused.value.violations] == [
        ("kept[0].reward", "too high"),
        ("seed", "negative"),
    ]


async def test_defect_tells_an_incident_and_nothing_of_its_cause_and_the_service_goes_on(
    stub: teacher_pb2_grpc.TeacherServiceAsyncStub,
) -> None:
    with pytest.raises(SealError, match="internal error") as defect, remote_errors():
        await stub.SetPolicy(teacher_pb2.SetPolicyRequest(request_id="defect"))
    assert "passage" not in defect.value.message
    answer = await stub.SetPolicy(teacher_pb2.SetPolicyRequest(request_id="fine", policy_version="base"))
    assert answer.policy_version == "base"


async def test_bytes_that_are_no_message_are_the_callers_mistake(target: str) -> None:
    async with open_channel(target) as channel:
        plain: Any = channel.unary_unary(f"/{SERVICE}/SetPolicy")
        with pytest.raises(InvalidRequest, match="3 bytes are no message"), remote_errors():
            await plain(b"\x0a\xff\xff")
        stream: Any = channel.unary_stream(f"/{SERVICE}/Learn")
        with pytest.raises(InvalidRequest, match="3 bytes are no message"), remote_errors():
            await anext(aiter(stream(b"\x0a\xff\xff")))


async def test_status_of_thousands_of_violations_arrives_and_says_how_many_it_leaves_out(
    stub: teacher_pb2_grpc.TeacherServiceAsyncStub,
) -> None:
    with pytest.raises(InvalidRequest) as refused, remote_errors():
        await stub.SetPolicy(teacher_pb2.SetPolicyRequest(request_id="many"))
    *named, last = refused.value.violations
    assert named[0].path == "kept[0].edit"
    assert last.reason.startswith(f"{5_000 - len(named)} more violations")


async def test_refused_requests_do_not_stay_in_memory(stub: teacher_pb2_grpc.TeacherServiceAsyncStub) -> None:
    for _ in range(20):
        with pytest.raises(InvalidRequest), remote_errors():
            await stub.SetPolicy(teacher_pb2.SetPolicyRequest(request_id="invalid"))
    gc.collect()
    assert sum(isinstance(thing, Violation) for thing in gc.get_objects()) < 5


async def test_long_message_and_ids_arrive_shortened(stub: teacher_pb2_grpc.TeacherServiceAsyncStub) -> None:
    with pytest.raises(NotFound, match=r"^\U0001f92f.*\.\.\.$") as missing, remote_errors():
        await stub.SetPolicy(teacher_pb2.SetPolicyRequest(request_id="long"))
    assert missing.value.reason == "NOT_FOUND"
    assert missing.value.ids["id0"].endswith("...")


async def test_what_is_too_much_for_good_is_not_tried_again() -> None:
    """gRPC's retries are for an overloaded service; it is told apart by what the service says of coming again."""
    servicer = Servicer()
    async with (
        running(
            ServiceConfig(listen="127.0.0.1:0"),
            service=SERVICE,
            add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(servicer, server),
        ) as server,
        open_channel(server.target) as channel,
    ):
        request = teacher_pb2.SetPolicyRequest(request_id="crowded")
        with pytest.raises(TooMuch, match="more memory"), remote_errors():
            await teacher_pb2_grpc.TeacherServiceStub(channel).SetPolicy(request)
    assert servicer.crowded == 1


async def test_deadline_ends_a_call(stub: teacher_pb2_grpc.TeacherServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stub.GetStatus(teacher_pb2.TeacherServiceGetStatusRequest(), timeout=0.2)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_liveness_answers_while_models_load_and_readiness_follows() -> None:
    loaded = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def note(server: grpc.aio.Server) -> None:
        port.set_result(server.add_insecure_port("127.0.0.1:0"))

    async def load() -> None:
        await loaded.wait()

    async def run() -> None:
        async with running(ServiceConfig(listen="127.0.0.1:0"), service=SERVICE, add=note, start=load):
            await asyncio.sleep(30)

    task = asyncio.create_task(run())
    async with open_channel(f"127.0.0.1:{await port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest
        serving, waiting = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await health.Check(request(service=""), wait_for_ready=True, timeout=5)).status == serving
        assert (await health.Check(request(service=SERVICE), timeout=5)).status == waiting
        loaded.set()
        async for reply in health.Watch(request(service=SERVICE), timeout=20):
            if reply.status == serving:
                break
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_port_in_use_is_refused_by_name(stub: teacher_pb2_grpc.TeacherServiceAsyncStub) -> None:
    async with running(ServiceConfig(listen="127.0.0.1:0"), service=SERVICE, add=lambda _: None) as first:
        with pytest.raises(InvalidConfig, match=first.target):
            async with running(ServiceConfig(listen=first.target), service=SERVICE, add=lambda _: None):
                pass
