"""AuditorService on the wire: validates, calls the domain, converts. Nothing is decided here."""
# ruff: noqa: N802 - the contract names the methods

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from auditor.events import Event
from auditor.findings import Run
from auditor.lineage import lineage
from auditor.provenance import edit_record, find_edit
from auditor.requests import (
    Ask,
    DecideEdit,
    GetEdit,
    ListEdits,
    NamedRun,
    Page,
    Promote,
    Rollback,
    StartRun,
    VerifyLedger,
    WatchRun,
)
from auditor.service import Auditor
from auditor.standing import holdout_results
from auditor.watch import Seen
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import auditor_pb2_grpc, student_pb2, teacher_pb2, types_pb2
from common.convert import from_proto, to_proto
from common.errors import SealError
from common.rpc.caller import caller

T = TypeVar("T")
MessageT = TypeVar("MessageT", bound=Message)
Context = Any


class AuditorServicer(auditor_pb2_grpc.AuditorServiceServicer):
    """Thin: one method an RPC."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    async def GetStatus(
        self, request: pb.AuditorServiceGetStatusRequest, context: Context
    ) -> pb.AuditorServiceGetStatusResponse:
        """A peer that cannot be reached is left out."""
        auditor = self._auditor
        seq, head = await auditor.recorder.run(auditor.recorder.ledger.head)
        response = pb.AuditorServiceGetStatusResponse(
            ledger_seq=seq,
            ledger_head=head,
            active_run_id=auditor.runs.active_run_id,
            software=to_proto(types_pb2.Software, auditor.crew.software),
        )
        try:
            teacher = await auditor.quick_teacher.status()
            response.teacher.CopyFrom(to_proto(teacher_pb2.TeacherServiceGetStatusResponse, teacher))
        except SealError:
            response.ClearField("teacher")
        try:
            student = await auditor.quick_student.status()
            response.student.CopyFrom(to_proto(student_pb2.StudentServiceGetStatusResponse, student))
        except SealError:
            response.ClearField("student")
        return response

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        run = await self._auditor.runs.order(from_proto(StartRun, request), str(caller()))
        return pb.StartRunResponse(run=run_to_proto(run))

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.WatchRunResponse]:
        wanted = from_proto(WatchRun, request)
        async for seen in self._auditor.runs.watch(wanted.run_id, wanted.after_seq):
            yield pb.WatchRunResponse(event=event_to_proto(seen))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        wanted = from_proto(NamedRun, request).run_id
        views = await self._auditor.views.current()
        run = run_to_proto(views.run_as_event(wanted))
        results = await holdout_results(self._auditor.recorder, views, wanted)
        return pb.GetRunResponse(run=run, holdout_results=[to_proto(pb.QuestionResult, result) for result in results])

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        views = await self._auditor.views.current()
        page, token = cut([(run.seq, run.run_id) for run in views.runs.values()], from_proto(Page, request))
        runs = [run_to_proto(views.run_as_event(run_id)) for run_id in page]
        return pb.ListRunsResponse(runs=runs, next_page_token=token)

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        run = await self._auditor.runs.cancel(from_proto(NamedRun, request).run_id, str(caller()))
        return pb.CancelRunResponse(run=run_to_proto(run))

    async def ListEdits(self, request: pb.ListEditsRequest, context: Context) -> pb.ListEditsResponse:
        wanted = from_proto(ListEdits, request)
        views = await self._auditor.views.current()
        if wanted.run_id:
            views.run(wanted.run_id)
        found = [
            (view.seq, view.summary)
            for view in views.edits
            if wanted.run_id in ("", view.run_id) and wanted.state in (None, view.state)
        ]
        page, token = cut(found, wanted)
        edits = [to_proto(pb.EditSummary, summary) for summary in page]
        return pb.ListEditsResponse(edits=edits, next_page_token=token)

    async def GetEdit(self, request: pb.GetEditRequest, context: Context) -> pb.GetEditResponse:
        views = await self._auditor.views.current()
        view = find_edit(views, from_proto(GetEdit, request).edit)
        record = await edit_record(self._auditor.recorder, views, view)
        return pb.GetEditResponse(record=to_proto(pb.EditRecord, record))

    async def ListVersions(
        self, request: pb.AuditorServiceListVersionsRequest, context: Context
    ) -> pb.AuditorServiceListVersionsResponse:
        views = await self._auditor.views.current()
        # The base has number 0; tokens count from 1.
        found = [(entry.number + 1, entry) for entry in lineage(views)]
        page, token = cut(found, from_proto(Page, request))
        versions = [to_proto(pb.LineageEntry, entry) for entry in page]
        found_of_live = to_proto(pb.Forgetting, views.forgetting())
        return pb.AuditorServiceListVersionsResponse(versions=versions, next_page_token=token, forgetting=found_of_live)

    async def Ask(self, request: pb.AskRequest, context: Context) -> pb.AskResponse:
        return to_proto(pb.AskResponse, await self._auditor.asking.ask(from_proto(Ask, request)))

    async def ApproveEdit(self, request: pb.ApproveEditRequest, context: Context) -> pb.ApproveEditResponse:
        decision = from_proto(DecideEdit, request)
        summary = await self._auditor.decisions.on_edit(decision, approved=True, decided_by=str(caller()))
        return pb.ApproveEditResponse(edit=to_proto(pb.EditSummary, summary))

    async def RejectEdit(self, request: pb.RejectEditRequest, context: Context) -> pb.RejectEditResponse:
        decision = from_proto(DecideEdit, request)
        summary = await self._auditor.decisions.on_edit(decision, approved=False, decided_by=str(caller()))
        return pb.RejectEditResponse(edit=to_proto(pb.EditSummary, summary))

    async def Promote(self, request: pb.PromoteRequest, context: Context) -> pb.PromoteResponse:
        promoted = await self._auditor.decisions.promote(from_proto(Promote, request), str(caller()))
        return pb.PromoteResponse(promoted=public(pb.VersionPromoted, promoted))

    async def Rollback(self, request: pb.RollbackRequest, context: Context) -> pb.RollbackResponse:
        promoted = await self._auditor.decisions.roll_back(from_proto(Rollback, request), str(caller()))
        return pb.RollbackResponse(promoted=public(pb.VersionPromoted, promoted))

    async def VerifyLedger(self, request: pb.VerifyLedgerRequest, context: Context) -> pb.VerifyLedgerResponse:
        wanted = from_proto(VerifyLedger, request)
        verdict = await self._auditor.verify_ledger(wanted.expected_seq, wanted.expected_hash)
        return pb.VerifyLedgerResponse(
            intact=verdict.intact,
            events=verdict.events,
            head=verdict.head,
            broken_at=verdict.broken_at,
            detail=verdict.detail,
            erased=verdict.erased,
        )


def cut(entries: Sequence[tuple[int, T]], page: Page) -> tuple[list[T], str]:
    """One page of (number, entry), newest first, and the token of the next."""
    below = int(page.page_token) if page.page_token else None
    ordered = sorted((entry for entry in entries if below is None or entry[0] < below), key=lambda entry: -entry[0])
    chosen = ordered[: page.page_size]
    token = str(chosen[-1][0]) if len(ordered) > len(chosen) else ""
    return [entry for _, entry in chosen], token


def run_to_proto(run: Run) -> pb.Run:
    return to_proto(pb.Run, run)


def public(message: type[MessageT], event: Event) -> MessageT:
    """An event without the part that the ledger alone keeps."""
    return to_proto(
        message, event.model_copy(update={"record": None}) if "record" in type(event).model_fields else event
    )


def event_to_proto(seen: Seen) -> pb.RunEvent:
    """A watcher's event."""
    message = pb.RunEvent(seq=seen.seq, run_id=seen.run_id)
    message.time.FromDatetime(seen.time)
    field = getattr(message, seen.event.kind)
    field.CopyFrom(public(type(field), seen.event))
    return message
