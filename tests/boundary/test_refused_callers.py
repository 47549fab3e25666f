"""Who may not call is refused, on every RPC that the contract has; who may is let through."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from common.boundary.allow_table import RPCS
from common.boundary.identities import Identity, Role
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import student_pb2
from common.errors import NotAllowed, Unauthenticated
from common.rpc.authorization import check
from common.rpc.client import open_channel, remote_errors
from common.rpc.reading import check_request
from tests.boundary.instant import instant_services, rpcs
from tests.boundary.refusals import STRANGERS, refusals


def test_the_table_names_exactly_the_rpcs_that_exist() -> None:
    assert {path for path in RPCS if path.startswith("/seal.v1.")} == {rpc.path for rpc in rpcs()}


async def test_every_rpc_refuses_everybody_whom_the_table_does_not_name() -> None:
    found = await refusals()
    assert found.mistakes == []
    everything = len(rpcs())
    named = sum(len(roles) for path, roles in RPCS.items() if path.startswith("/seal.v1."))
    assert found.rpcs == everything
    assert {kind: found.refused[kind] for kind in STRANGERS} == dict.fromkeys(STRANGERS, everything)
    for kind in ("foreign trust domain", "two identities", "operator without a name"):
        assert found.refused[kind] == everything
    assert found.refused_wrong_identity == everything * len(Role) - named
    assert found.admitted == named
    assert found.refused["impostor"] == 6


async def test_a_refusal_says_who_was_refused_what(tmp_path: Path) -> None:
    async with instant_services(tmp_path) as services:
        rpc = next(rpc for rpc in rpcs() if rpc.method.name == "Promote")
        tls = services.certificate(Role.OPERATOR, "alice")
        async with open_channel(services.targets[Role.TEACHER], tls=tls, expects=Role.TEACHER) as channel:
            wrong = next(rpc for rpc in rpcs() if rpc.method.name == "Learn")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await wrong.call(channel)
        status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]  # an AioRpcError has what is read
        info = error_details_pb2.ErrorInfo()
        assert status is not None
        assert status.details[0].Unpack(info)
        assert (info.reason, dict(info.metadata)) == (
            "NOT_ALLOWED",
            {"identity": "operator/alice", "method": "/seal.v1.TeacherService/Learn"},
        )
        async with open_channel(services.targets[Role.AUDITOR], tls=tls, expects=Role.AUDITOR) as channel:
            await rpc.call(channel)


def answer(*versions: str, purpose: student_pb2.AnswerPurpose.ValueType = student_pb2.ANSWER_PURPOSE_LIVE) -> object:
    return student_pb2.AnswerRequest(purpose=purpose, versions=versions)


@pytest.mark.parametrize(
    ("path", "request_", "allowed"),
    [
        ("Answer", answer("live"), True),
        ("Answer", answer("live", purpose=student_pb2.ANSWER_PURPOSE_AUDIT), False),
        ("Answer", answer("base"), False),
        ("Answer", answer("live", "base"), False),
        ("Answer", answer(), False),
        ("Ask", pb.AskRequest(), True),
        ("Ask", pb.AskRequest(version="live"), True),
        ("Ask", pb.AskRequest(fallback_to_parent=True), True),
        ("Ask", pb.AskRequest(version="base"), False),
        ("Ask", pb.AskRequest(version="previous"), False),
    ],
)
async def test_the_application_may_ask_the_live_version_alone(
    tmp_path: Path, path: str, request_: object, allowed: bool
) -> None:
    rpc = next(rpc for rpc in rpcs() if rpc.method.name == path)
    async with instant_services(tmp_path) as services:
        tls = services.certificate(Role.APPLICATION)
        async with open_channel(services.targets[rpc.role], tls=tls, expects=rpc.role) as channel:
            if allowed:
                await rpc.call(channel, request_)
                return
            with pytest.raises(NotAllowed) as refused, remote_errors():
                await rpc.call(channel, request_)
            assert refused.value.reason == "LIVE_ONLY"
            assert services.reached.total() == 0


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        (pb.RunSettings(), True),
        (pb.RunSettings(rounds=2, candidates=3, seeds=1, seed=7), True),
        (pb.RunSettings(rounds=2, level=0.9), False),
        (pb.RunSettings(retention=pb.RetentionSettings(max_drop=1.0)), False),
        (pb.RunSettings(accept_drift=True), False),
        (pb.RunSettings(promotion=pb.PROMOTION_MODE_SEQUENTIAL), False),
    ],
)
def test_a_scheduler_may_not_loosen_what_a_run_is_judged_by(settings: pb.RunSettings, allowed: bool) -> None:
    path, request = "/seal.v1.AuditorService/StartRun", pb.StartRunRequest(settings=settings)
    check_request(Identity(Role.OPERATOR, "alice"), path, request)
    if allowed:
        check_request(Identity(Role.SCHEDULER), path, request)
        return
    with pytest.raises(NotAllowed) as refused:
        check_request(Identity(Role.SCHEDULER), path, request)
    assert refused.value.reason == "AUDITORS_BOUNDS"
    assert "settings." in refused.value.message


async def test_nothing_of_a_refused_call_is_parsed(tmp_path: Path) -> None:
    """Bytes that are no message: who may call is told so, who may not is told only that."""
    learn = next(rpc for rpc in rpcs() if rpc.method.name == "Learn")
    async with instant_services(tmp_path) as services:
        for role, code in (
            (Role.APPLICATION, grpc.StatusCode.PERMISSION_DENIED),
            (Role.AUDITOR, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            tls = services.certificate(role)
            async with open_channel(services.targets[Role.TEACHER], tls=tls, expects=Role.TEACHER) as channel:
                raw: Any = channel.unary_stream(learn.path)  # without a serializer it sends bytes as they are
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await raw(b"\xff\xff\xff").read()
            assert refused.value.code() is code
        assert services.reached.total() == 0


async def test_a_connection_does_not_outlive_its_certificate(tmp_path: Path) -> None:
    """The handshake was good; what is asked over it once the certificate has expired is refused."""
    rpc = next(rpc for rpc in rpcs() if rpc.path.endswith("StudentService/GetStatus"))
    async with instant_services(tmp_path) as services:
        folder = services.authority.issue(tmp_path / "short", Role.AUDITOR, valid=timedelta(seconds=6))
        credentials = grpc.ssl_channel_credentials(
            services.authority.pem, (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
        )
        async with grpc.aio.secure_channel(services.targets[Role.STUDENT], credentials) as channel:
            await rpc.call(channel)
            await asyncio.sleep(6.5)  # until the certificate has expired: nothing says so but the clock
            with pytest.raises(Unauthenticated) as refused, remote_errors():
                await rpc.call(channel)
        assert refused.value.reason == "CERTIFICATE_EXPIRED"


def test_an_rpc_that_the_table_does_not_name_is_refused_to_everybody() -> None:
    for role in Role:
        with pytest.raises(NotAllowed):
            check(Identity(role), "/seal.v1.AuditorService/Added")
