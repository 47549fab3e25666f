"""Whole runs of an auditor whose student is three replicas: the same verdicts as with one, also when one goes away."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from auditor.config import StudentPeer
from common.config import ServiceConfig
from common.contract.seal.v1 import student_pb2_grpc
from common.rpc.server import running
from tests.auditor.plays import at_desk, kinds, of_kind, start_run, student, task, teacher, teaching
from tests.support.scripted_services import ScriptedStudent, Stage, on_stage

QUIET = {"listen": "127.0.0.1:0", "grace_seconds": 0}


async def replicas_of(stage: Stage, count: int, stack: AsyncExitStack) -> str:
    """The stage's student at further addresses: what one address did, the others know."""
    ports = [stage.student_target]
    for _ in range(count - 1):

        def add(server: grpc.aio.Server) -> None:
            student_pb2_grpc.add_StudentServiceServicer_to_server(stage.student, server)

        config = ServiceConfig.model_validate(QUIET)
        server = await stack.enter_async_context(running(config, service="seal.v1.StudentService", add=add))
        ports.append(server.target)
    return "ipv4:" + ",".join(ports)


async def verdicts(folder: Path, stand_in: ScriptedStudent, count: int) -> tuple[list[str], Any]:
    await asyncio.to_thread(folder.mkdir)
    edits = [teaching("a", n) for n in (3, 6, 10)]
    async with on_stage(teacher(a=edits), stand_in) as stage, AsyncExitStack() as stack:
        target = await replicas_of(stage, count, stack)
        student_peer = StudentPeer(target=target, replicas=0 if count > 1 else 1)
        async with at_desk(stage, folder, student=student_peer) as desk:
            events = await desk.run(start_run("run", [task("a")]))
        assert kinds(events)[-1] == "run_finished"
        (decided,) = of_kind(events, "filter_decided")
        return [verdict.edit.sha256 for verdict in decided.verdicts if verdict.kept], stage.outcome()


async def test_three_replicas_come_to_what_one_comes_to(tmp_path: Path) -> None:
    alone, several = student(), student()
    assert await verdicts(tmp_path / "one", alone, 1) == await verdicts(tmp_path / "three", several, 3)
    assert len(alone.requests_to_train()) < len(several.requests_to_train())


@pytest.mark.parametrize("rpc", ["Train", "Answer"])
async def test_streams_that_break_at_any_replica_change_nothing_and_nothing_is_trained_twice(
    tmp_path: Path, rpc: str
) -> None:
    whole, broken = student(), student()
    broken.faults.breaks[rpc] = 3
    assert await verdicts(tmp_path / "whole", whole, 1) == await verdicts(tmp_path / "broken", broken, 3)
    assert max(broken.trainings.values()) == 1
