"""Who ordered and who decided stands in the record, as the certificate says: through all three services' real ways."""

from __future__ import annotations

from pathlib import Path

from auditor.service import Auditor as AuditorParts
from auditor.servicer import AuditorServicer
from cli.certificates import Authority
from cli.client import Auditor
from cli.watcher import watch
from common.boundary.identities import Role
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import auditor_pb2_grpc
from common.rpc.client import open_channel
from common.rpc.server import running
from common.tls.settings import TlsSettings
from tests.auditor.plays import config, settings, start_run, student, task, teacher, teaching
from tests.support.scripted_services import on_stage


async def test_a_run_and_decisions_are_recorded_under_the_callers_identity(tmp_path: Path) -> None:
    authority = Authority.create()

    def certificate(role: Role, name: str = "") -> TlsSettings:
        return TlsSettings.of_folder(authority.issue(tmp_path / f"{role}-{name}", role, name))

    async with on_stage(teacher(a=[teaching("a", 10)]), student(), certificate=certificate) as stage:
        resolved = config(stage, tmp_path, tls=certificate(Role.AUDITOR), settings=settings())
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
            open_channel(at.target, tls=certificate(Role.SCHEDULER), expects=Role.AUDITOR) as nightly,
            open_channel(at.target, tls=certificate(Role.OPERATOR, "alice"), expects=Role.AUDITOR) as person,
        ):
            scheduler, alice = Auditor(nightly, at.target), Auditor(person, at.target)
            request = start_run("nightly", [task("a")])
            request.settings.CopyFrom(pb.RunSettings(candidates=1))  # the rest is the auditor's to set for a scheduler
            started = await scheduler.start_run(request)
            events = [event async for event in watch(scheduler, "nightly")]
            finished = next(event.run_finished.run for event in events if event.HasField("run_finished"))
            assert started.ordered_by == "scheduler"
            assert (await alice.run("nightly")).ordered_by == "scheduler"
            assert finished.state == pb.RUN_STATE_FINISHED
            back = await alice.rollback("base", "not tonight")
            assert back.decided_by == "operator/alice"
            assert (await alice.start_run(start_run("by-hand", [task("a")]))).ordered_by == "operator/alice"
