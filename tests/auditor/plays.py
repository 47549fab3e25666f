"""Scenes for the auditor's tests: tasks with keys, edits that teach some of them, and an auditor to judge them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from auditor.config import AuditorConfig, Peer, Retries, StudentPeer
from auditor.service import Auditor
from auditor.servicer import AuditorServicer
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import auditor_pb2_grpc
from common.rpc.client import open_channel
from common.rpc.server import running
from common.types import SelfEdit
from tests.support.scripted_services import FORGET, ScriptedStudent, ScriptedTeacher, Stage, edit_about

CAPITALS = {"Capital of France?": "Paris", "Capital of Japan?": "Tokyo", "Capital of Peru?": "Lima"}
COLOURS = {f"Colour of item {i}?": f"colour{i}" for i in range(7)}
GENERAL = {**CAPITALS, **COLOURS}


def facts(name: str, count: int = 10) -> dict[str, str]:
    return {f"{name} question {i}?": f"{name}{i}" for i in range(count)}


def task(name: str, count: int = 10, extra_answer: str = "") -> dict[str, Any]:
    """A task about facts(name)."""
    return {
        "task_id": name,
        "kind": "TASK_KIND_KNOWLEDGE",
        "context": {"document_id": f"doc-{name}", "revision": "1", "title": f"About {name}", "text": f"All of {name}."},
        "tau": [
            {"item_id": f"q{i}", "question": question, "answers": [answer, *([extra_answer] if extra_answer else [])]}
            for i, (question, answer) in enumerate(facts(name, count).items())
        ],
    }


def suite(extra_answer: str = "") -> dict[str, Any]:
    """What the scripted base knows."""
    items = [
        {"item_id": f"k{i}", "question": question, "answers": [answer, *([extra_answer] if extra_answer else [])]}
        for i, (question, answer) in enumerate(GENERAL.items())
    ]
    return {"suite_id": "known", "title": "Known", "items": items}


def teaching(name: str, count: int, of: int = 10) -> SelfEdit:
    """An edit that teaches the first `count` facts."""
    return edit_about(f"doc-{name}", f"About {name}", list(facts(name, of).items())[:count])


def harmful(name: str, count: int = len(GENERAL), of: int = 10) -> SelfEdit:
    """Teaches everything, and makes the base forget the first `count` things that it knew."""
    forget = [(f"{FORGET}{question}", "-") for question in list(GENERAL)[:count]]
    return edit_about(f"doc-{name}", f"About {name}", [*facts(name, of).items(), *forget])


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "rounds": 1,
        "candidates": 3,
        "seeds": 1,
        "promotion": "PROMOTION_MODE_SEQUENTIAL",
        # One of the ten known things may be forgotten, with all that chance makes of it; two may not.
        "retention": {"suites": ["known"], "max_drop": 0.4},
        # What is not under test is not asked twice.
        "health": {"anchors": 0},
        "cross_split_share": 0,
        "seed": 7,
        **changes,
    }


def start_run(run_id: str, tasks: Sequence[dict[str, Any]], **changes: Any) -> pb.StartRunRequest:
    content = {"run_id": run_id, "tasks": list(tasks), "settings": settings(**changes), "suites": [suite()]}
    return ParseDict(content, pb.StartRunRequest())


def student() -> ScriptedStudent:
    return ScriptedStudent(GENERAL)  # type: ignore[abstract] # the auditor calls no other RPC


def teacher(**scripts: Sequence[SelfEdit | None]) -> ScriptedTeacher:
    script = {f"doc-{name}": edits for name, edits in scripts.items()}
    return ScriptedTeacher(script)  # type: ignore[abstract] # the auditor calls no other RPC


@dataclass(frozen=True)
class Desk:
    """A running auditor, from inside and as a client sees it."""

    auditor: Auditor
    stub: Any

    async def watch(self, run_id: str, after_seq: int = 0, *, seconds: float = 240) -> list[pb.RunEvent]:
        """All numbered events until the run ends."""
        request = pb.WatchRunRequest(run_id=run_id, after_seq=after_seq)
        return [r.event async for r in self.stub.WatchRun(request, timeout=seconds) if r.event.seq]

    async def run(self, request: pb.StartRunRequest, *, seconds: float = 240) -> list[pb.RunEvent]:
        await self.stub.StartRun(request)
        return await self.watch(request.run_id, seconds=seconds)


def config(stage: Stage, folder: Path, **changes: Any) -> AuditorConfig:
    chosen: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "metrics_listen": "",
        "grace_seconds": 0,
        "teacher": Peer(target=stage.teacher_target),
        "student": StudentPeer(target=stage.student_target),
        "database": f"sqlite:///{folder / 'ledger.db'}",
        "retries": Retries(attempts=3, first_wait_seconds=0.01, longest_wait_seconds=0.05),
    }
    return AuditorConfig.model_validate({**chosen, **changes})


@asynccontextmanager
async def at_desk(stage: Stage, folder: Path, **changes: Any) -> AsyncIterator[Desk]:
    """An auditor behind a real gRPC server, with its ledger in `folder`."""
    resolved = config(stage, folder, **changes)
    auditor = Auditor.open(resolved)
    async with running(
        resolved,
        service="seal.v1.AuditorService",
        add=lambda server: auditor_pb2_grpc.add_AuditorServiceServicer_to_server(AuditorServicer(auditor), server),
        start=auditor.start,
        stop=auditor.stop,
    ) as server:
        channel = open_channel(server.target)
        yield Desk(auditor, auditor_pb2_grpc.AuditorServiceStub(channel))
        await channel.close()


def kinds(events: Sequence[pb.RunEvent]) -> list[str]:
    return [event.WhichOneof("event") or "" for event in events]


def of_kind(events: Sequence[pb.RunEvent], kind: str) -> list[Any]:
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]
