"""A scheduler's whole night under mutual TLS: it orders what changed, watches, notes, and is told no question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from auditor.service import Auditor as AuditorParts
from auditor.servicer import AuditorServicer
from cli.certificates import Authority
from cli.changes import State, run_what_changed
from cli.client import Auditor
from cli.following import RunRequest
from common.boundary.identities import Role
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import auditor_pb2_grpc, task_pb2
from common.rpc.client import open_channel
from common.rpc.server import running
from common.tls.settings import TlsSettings
from tests.auditor.plays import config, settings, student, suite, task, teacher, teaching
from tests.support.scripted_services import on_stage


def documents(*names: str) -> list[task_pb2.Task]:
    return [ParseDict(task(name), task_pb2.Task()) for name in names]


def request(*names: str) -> RunRequest:
    """What the test's run is judged by is the auditor's own; the suite comes along."""
    known = ParseDict(suite(), task_pb2.Suite())
    return RunRequest(tasks=documents(*names), settings=pb.RunSettings(candidates=1), suites=[known])


async def test_a_scheduler_teaches_what_changed_and_is_told_no_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority.create()

    def certificate(role: Role) -> TlsSettings:
        authority.issue(tmp_path / role, role)
        return TlsSettings.of_folder(tmp_path / role)

    state = tmp_path / "state.json"
    play = teacher(a=[teaching("a", 10)], b=[teaching("b", 10)])
    bounds: Any = {**settings(), "retention": {"max_drop": 0.4}}
    async with on_stage(play, student(), certificate=certificate) as stage:
        resolved = config(stage, tmp_path, tls=certificate(Role.AUDITOR), settings=bounds)
        parts = AuditorParts.open(resolved)
        server = running(
            resolved,
            service="seal.v1.AuditorService",
            add=lambda server: auditor_pb2_grpc.add_AuditorServiceServicer_to_server(AuditorServicer(parts), server),
            start=parts.start,
            stop=parts.stop,
        )
        async with (
            server as at,
            open_channel(at.target, tls=certificate(Role.SCHEDULER), expects=Role.AUDITOR) as channel,
        ):
            service = Auditor(channel, at.target)
            await run_what_changed(service, request("a"), state)
            first = State.read(state)
            await run_what_changed(service, request("a", "b"), state)
            second = State.read(state)
            await run_what_changed(service, request("a", "b"), state)
            told = await service.holdout_results(second.last_run)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.stub.Ask(pb.AskRequest(question="Who are you?"))
    shown = capsys.readouterr()
    assert set(first.documents) == {"a"}
    assert set(second.documents) == {"a", "b"}
    assert first.last_run != second.last_run
    assert State.read(state) == second
    assert "Nothing changed: 2 documents" in shown.err
    assert "Its edits are an operator's to read" in shown.out
    assert [alias for alias, _ in stage.student.moves if alias == "live"] == ["live"] * 2
    assert told == []
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
