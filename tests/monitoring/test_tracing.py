"""One edit's way over the three services is one trace; no text travels with it; a dead collector holds nothing up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from cli.certificates import Authority
from common.boundary.identities import Role
from common.config import ServiceConfig
from common.contract.seal.v1 import teacher_pb2, teacher_pb2_grpc
from common.errors import Unavailable
from common.rpc.client import open_channel, remote_errors
from common.rpc.server import running
from common.tracing import TracingSettings, note, root_of, span
from common.tracing.client import client_interceptors
from common.tracing.spans import harmless
from tests.auditor import plays
from tests.support.collector import Collector, Spanned, collecting
from tests.support.scripted_services import on_stage

SECRET = "The harbour master keeps 14 copper keys."
EDITS = [plays.teaching("bees", 10), plays.teaching("bees", 4), plays.teaching("bees", 0)]
FEW_NAMES = {"task", "propose", "train", "score", "grade", "answer", "update", "train alone", "judge", "promote"}


async def traced_run(folder: Path, **tracing: Any) -> None:
    """A run with an edit that is promoted, one that is beaten and one that teaches nothing; all services traced."""
    settings = {"sample_ratio": 1.0, **tracing}
    teacher, student = plays.teacher(bees=EDITS), plays.student()
    async with (
        on_stage(teacher, student, tracing=TracingSettings(**settings)) as stage,
        plays.at_desk(stage, folder, tracing=settings) as desk,
    ):
        task = plays.task("bees", extra_answer=SECRET)
        task["context"]["text"] = SECRET
        events = await desk.run(plays.start_run("watched", [task]))
        assert plays.kinds(events)[-1] == "run_finished"
        assert plays.of_kind(events, "version_promoted")


def ancestors(collector: Collector, span: Spanned) -> list[str]:
    by_id = {one.span: one for one in collector.spans}
    names: list[str] = []
    while span.parent:
        span = by_id[span.parent]
        names.append(span.name)
    return names


async def test_an_edits_way_over_three_services_is_one_trace(tmp_path: Path) -> None:
    with collecting() as collector:
        await traced_run(tmp_path, endpoint=collector.target)
        way = [one for one in collector.spans if one.trace == collector.one("task").trace]
    assert {one.service for one in way} == {"seal-teacher", "seal-student", "seal-auditor"}
    assert {one.name for one in way} >= FEW_NAMES
    by_rpc = {one.name.rpartition("/")[2]: one for one in way if "/" in one.name}
    assert by_rpc.keys() >= {"ProposeEdits", "Train", "Answer", "SetAlias", "Learn"}
    assert ancestors(collector, by_rpc["ProposeEdits"]) == ["propose", "task"]
    assert ancestors(collector, by_rpc["SetAlias"]) == ["promote", "update", "task"]
    assert by_rpc["Train"].service == "seal-student"
    assert by_rpc["ProposeEdits"].attributes["rpc.grpc.status_code"] == 0


async def test_a_trace_says_which_edit_was_kept_gated_and_made_live(tmp_path: Path) -> None:
    with collecting() as collector:
        await traced_run(tmp_path, endpoint=collector.target)
    best = EDITS[0].digest.sha256
    verdicts = {a["seal.edit"]: a["seal.kept"] for name, a in collector.one("task").events if name == "verdict"}
    assert verdicts[best] is True
    assert verdicts[EDITS[2].digest.sha256] is False
    assert collector.one("update").attributes["seal.edit"] == best
    gates = [attributes for name, attributes in collector.one("judge").events if name == "gate"]
    assert {"retention", "confirmation"} <= {gate["seal.gate"] for gate in gates}
    assert all(gate["seal.passed"] for gate in gates)
    assert collector.named("train")[0].attributes["seal.candidates"] == 3


async def test_no_text_is_exported(tmp_path: Path) -> None:
    with collecting() as collector:
        await traced_run(tmp_path, endpoint=collector.target)
        assert best_is_there(collector), "it would be found if it were sent"
        for text in (SECRET, "copper keys", "About bees", "bees question", "bees0"):
            assert text.encode() not in collector.received


def best_is_there(collector: Collector) -> bool:
    return EDITS[0].digest.sha256.encode() in collector.received


def test_what_is_no_id_leaves_as_its_digest() -> None:
    assert harmless("doc-bees:1/q0") == "doc-bees:1/q0"
    assert str(harmless(SECRET)).startswith("sha256:")
    assert harmless(0.25) == 0.25


async def test_a_failed_span_says_why_in_a_word_of_the_contract(tmp_path: Path) -> None:
    with collecting() as collector:
        async with service(endpoint=collector.target):
            with pytest.raises(Unavailable), span("train", edit="e1"):
                raise Unavailable(SECRET, reason="STUDENT_AWAY")
    assert collector.one("train").failed == "STUDENT_AWAY"
    assert b"copper" not in collector.received


async def test_a_named_trace_is_the_same_after_a_restart() -> None:
    name = root_of("edits", "run", 1, "bees")
    with collecting() as collector:
        for _ in range(2):
            async with service(endpoint=collector.target):
                with span("task", starts=name), span("propose"):
                    note("proposed", edit="e1")
                with span("update", under=name):
                    pass
    assert len({one.trace for one in collector.spans}) == 1
    assert {one.parent for one in collector.named("update")} == {collector.named("task")[0].span}


async def test_traces_are_kept_whole_or_not_at_all() -> None:
    names = [root_of("edits", "run", round_, "bees") for round_ in range(60)]
    with collecting() as collector:
        async with service(endpoint=collector.target, sample_ratio=0.5):
            for name in names:
                with span("task", starts=name):
                    pass
                with span("update", under=name):
                    pass
    tasks, updates = ({one.trace for one in collector.named(kind)} for kind in ("task", "update"))
    assert tasks == updates
    assert 10 < len(tasks) < 50


def service(**tracing: Any) -> Any:
    config = ServiceConfig(listen="127.0.0.1:0", grace_seconds=0, tracing=TracingSettings(**tracing))
    teacher = plays.teacher(bees=EDITS)
    return running(
        config,
        service="seal.v1.TeacherService",
        add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(teacher, server),
    )


async def test_a_dead_collector_costs_a_warning_and_no_time(tmp_path: Path) -> None:
    started = time.monotonic()
    with capture_logs() as logs:
        await traced_run(tmp_path, endpoint="127.0.0.1:9", timeout_seconds=1.0)
    assert time.monotonic() - started < 20
    lost = [entry for entry in logs if "collector takes no spans" in entry["event"]]
    assert lost
    assert {entry["log_level"] for entry in lost} == {"warning"}


async def test_a_collector_is_reached_over_tls_and_sees_who_sends(tmp_path: Path) -> None:
    authority = Authority.create()
    files = authority.issue(tmp_path / "auditor", Role.AUDITOR)
    key, certificate, ca = ((files / name).read_bytes() for name in ("tls.key", "tls.crt", "ca.crt"))
    credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    own = {"ca": files / "ca.crt", "certificate": files / "tls.crt", "key": files / "tls.key"}
    with collecting(credentials) as collector:
        port = collector.target.rpartition(":")[2]
        async with service(endpoint=f"localhost:{port}", **own):
            with span("propose"):
                pass
        async with service(endpoint=f"localhost:{port}", ca=own["ca"], timeout_seconds=0.5):
            with span("unasked"):
                pass
    assert [one.name for one in collector.spans] == ["propose"]


async def test_a_refused_call_is_told_from_an_answered_one() -> None:
    with collecting() as collector:
        async with service(endpoint=collector.target) as serving:
            channel = open_channel(serving.target, interceptors=client_interceptors(TracingSettings(endpoint="x:1")))
            stub = teacher_pb2_grpc.TeacherServiceStub(channel)
            with span("ask"), pytest.raises(Exception, match="internal error"), remote_errors():
                await stub.ListPolicies(teacher_pb2.ListPoliciesRequest())
            await channel.close()
    asked, answered = collector.one("ask"), collector.one("seal.v1.TeacherService/ListPolicies")
    assert answered.parent == asked.span
    assert answered.attributes["rpc.grpc.status_code"] != 0
    assert answered.failed


def test_nothing_of_opentelemetry_is_imported_when_off() -> None:
    code = (
        "import sys, auditor.service, common.rpc.server\n"
        "from common.tracing import span\n"
        "with span('x'): pass\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
