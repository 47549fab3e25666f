"""The auditor as a process: starts light, refuses bad settings, survives SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import auditor_pb2_grpc
from common.rpc.client import open_channel
from tests.auditor.plays import at_desk, kinds, of_kind, start_run, student, task, teacher, teaching
from tests.support.scripted_services import Stage, on_stage

ROOT = Path(__file__).parents[2]


def test_importing_the_auditor_starts_nothing_and_loads_no_model_library() -> None:
    code = (
        "import sys, threading, auditor.__main__\n"
        "heavy = {'torch', 'transformers', 'peft', 'vllm', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} {threading.active_count()}' if heavy or threading.active_count() > 1 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_key_is_refused_by_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "auditor", "--set", "settings.roundz=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "settings.roundz: unknown key" in done.stderr


@asynccontextmanager
async def process(
    stage: Stage, folder: Path, port: int, *, metrics_port: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    settings = {
        "listen": f"127.0.0.1:{port}",
        "metrics_listen": f"127.0.0.1:{metrics_port}" if metrics_port else "''",
        "database": f"sqlite:///{folder / 'ledger.db'}",
        "teacher.target": stage.teacher_target,
        "student.target": stage.student_target,
    }
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "auditor", *arguments, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


async def watch(stub: Any, after: int, until: int | None) -> list[pb.RunEvent]:
    """Events above a number; leaves when one of at least `until` was seen."""
    seen: list[pb.RunEvent] = []
    request = pb.WatchRunRequest(run_id="run", after_seq=after)
    async for response in stub.WatchRun(request, timeout=60, wait_for_ready=True):
        if response.event.seq:
            seen.append(response.event)
        if until is not None and response.event.seq >= until:
            break
    return seen


async def test_sigkill_in_mid_run_loses_nothing(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    edits = [teaching("a", n) for n in (0, 5, 10)]
    async with on_stage(teacher(a=edits), student()) as stage, open_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = auditor_pb2_grpc.AuditorServiceStub(channel)
        async with process(stage, tmp_path, port) as first:
            await stub.StartRun(start_run("run", [task("a")]), wait_for_ready=True, timeout=60)
            before = await watch(stub, 0, until=9)
            os.kill(first.pid, signal.SIGKILL)
            assert await first.wait() == -signal.SIGKILL
        async with process(stage, tmp_path, port) as second:
            after = await watch(stub, before[-1].seq, until=None)
            verdict = await stub.VerifyLedger(pb.VerifyLedgerRequest())
            second.terminate()
            assert await asyncio.wait_for(second.wait(), 30) == 0
    events = [*before, *after]
    assert [e.seq for e in events] == sorted({e.seq for e in events})
    assert kinds(events)[-1] == "run_finished"
    assert len(of_kind(events, "run_resumed")) == 1
    assert verdict.intact
    assert max(stage.student.trainings.values()) == 1
    assert len(stage.student.moves) == 1


async def test_second_auditor_on_the_same_ledger_is_refused(tmp_path: Path) -> None:
    async with on_stage(teacher(), student()) as stage, process(stage, tmp_path, 0) as first:
        # Its lock comes before the database's file.
        for _ in range(600):
            if (tmp_path / "ledger.db").exists() or first.returncode is not None:
                break
            await asyncio.sleep(0.1)
        async with process(stage, tmp_path, 0) as second:
            assert await asyncio.wait_for(second.wait(), 30) == 1
        assert first.returncode is None


async def test_peer_that_breaks_the_contract_fails_the_run_by_its_name(tmp_path: Path) -> None:
    stand_in = student()
    original = stand_in.Answer

    async def without_proof(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        async for response in original(request, context):
            if not response.HasField("proof"):
                yield response

    stand_in.Answer = without_proof  # type: ignore[method-assign]
    async with on_stage(teacher(a=[teaching("a", 3)]), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        await desk.stub.StartRun(start_run("run", [task("a")], candidates=1))
        events = await desk.watch("run")
    failed = of_kind(events, "run_failed")[0]
    assert failed.reason == "PEER_BROKE_CONTRACT"
    assert "liveness proof" in failed.detail
