"""A scheduler's whole night under mutual TLS: it orders what changed, watches, notes, and is told no question."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
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


def written(name: str) -> dict[str, Any]:
    """The same as a task file has it."""
    message = task(name)
    tau = [{"id": item["item_id"], "question": item["question"], "answers": item["answers"]} for item in message["tau"]]
    context = message["context"]
    return {
        "id": name,
        "document_id": context["document_id"],
        "title": context["title"],
        "context": context["text"],
        "tau": tau,
    }


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
    play = teacher(a=[teaching("a", 10)], b=[teaching("b", 10)], c=[teaching("c", 10)])
    bounds: Any = {**settings(), "retention": {"suites": [], "max_drop": 0.4}}
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
            # The same once more as the job of a schedule does it: the command line, a file, the scheduler's folder.
            (tmp_path / "c.yaml").write_text(yaml.safe_dump(written("c")))
            told_to = ["run", str(tmp_path / "c.yaml"), "--candidates", "1", "--json", "--changed-since", str(state)]
            job = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "cli.main", *told_to],
                *["--auditor", at.target, "--tls", str(tmp_path / Role.SCHEDULER)],
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            printed, remarked = await job.communicate()
    shown = capsys.readouterr()
    assert set(first.documents) == {"a"}
    assert set(second.documents) == {"a", "b"}
    assert first.last_run != second.last_run
    assert "Nothing changed: 2 documents" in shown.err
    assert "Its edits are an operator's to read" in shown.out
    assert [alias for alias, _ in stage.student.moves if alias == "live"] == ["live"] * 3
    assert told == []
    assert job.returncode == 0, remarked.decode()
    assert json.loads(printed.splitlines()[-1])["type"] == "run_finished"
    assert "c" in State.read(state).documents
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
