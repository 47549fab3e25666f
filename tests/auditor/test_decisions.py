"""What an operator decides is done once and recorded; edits and lineage show it; asking reaches the right version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from auditor.events import Event, VersionPromoted
from auditor.ledger.chain import Link
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import student_pb2
from common.errors import Unavailable
from tests.auditor.plays import GENERAL, Desk, at_desk, harmful, of_kind, start_run, student, task, teacher, teaching
from tests.support.scripted_services import UNKNOWN, ScriptedStudent, Stage, on_stage

A, B = teaching("a", 10), teaching("b", 10)


class Interrupted(ScriptedStudent):
    """Lets somebody do something just before it trains at a smaller scale, or answers for retention."""

    async def before_scaling(self) -> None: ...

    async def before_retention(self) -> None: ...

    async def Train(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.candidates[0].scale < 1:
            await self.before_scaling()
        async for event in super().Train(request, context):
            yield event

    async def Answer(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if len(request.prompts) == len(GENERAL) and list(request.versions) != ["base"]:
            await self.before_retention()
        async for event in super().Answer(request, context):
            yield event


@pytest.mark.parametrize("moment", ["before_scaling", "before_retention"])
async def test_a_rejection_while_an_update_is_judged_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    edit = harmful("a", 2) if moment == "before_scaling" else A
    stand_in = Interrupted(GENERAL)  # type: ignore[abstract] # the auditor calls no other RPC
    async with on_stage(teacher(a=[edit]), stand_in) as stage, at_desk(stage, tmp_path) as desk:

        async def reject() -> None:
            await desk.stub.RejectEdit(pb.RejectEditRequest(request_id="n", edit=edit.digest.sha256, reason="no"))

        monkeypatch.setattr(stand_in, moment, reject)
        events = await desk.run(start_run("run", [task("a")], candidates=1))
        record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=edit.digest.sha256))).record
    assert stage.student.moves == []
    assert record.summary.state == pb.EDIT_STATE_REJECTED
    last = of_kind(events, "update_judged")[-1]
    assert [(gate.kind, gate.reason) for gate in last.gates] == [(pb.GATE_KIND_APPROVAL, "rejected by operator")]


@asynccontextmanager
async def two_promotions(folder: Path) -> AsyncIterator[tuple[Stage, Desk, list[str]]]:
    """base -> a -> b, in one run."""
    async with on_stage(teacher(a=[A], b=[B]), student()) as stage, at_desk(stage, folder) as desk:
        events = await desk.run(start_run("run", [task("a"), task("b")], candidates=1))
        yield stage, desk, [p.version for p in of_kind(events, "version_promoted")]


def rollback(request_id: str, version: str = "") -> pb.RollbackRequest:
    return pb.RollbackRequest(request_id=request_id, version=version, reason="customers complained")


async def test_rollback_goes_back_step_by_step_and_marks_the_edits(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (stage, desk, (first, second)):
        edits = {e.edit.sha256 for e in (await desk.stub.ListEdits(pb.ListEditsRequest())).edits}
        once = (await desk.stub.Rollback(rollback("r1"))).promoted
        again = (await desk.stub.Rollback(rollback("r1"))).promoted
        states = {e.edit.sha256: e.state for e in (await desk.stub.ListEdits(pb.ListEditsRequest())).edits}
        twice = (await desk.stub.Rollback(rollback("r2"))).promoted
        with pytest.raises(grpc.aio.AioRpcError) as nothing:
            await desk.stub.Rollback(rollback("r3"))
        lineage = (await desk.stub.ListVersions(pb.AuditorServiceListVersionsRequest())).versions
    assert (once.version, once.previous_version, once.rollback, once.decided_by) == (first, second, True, "operator")
    assert again == once
    assert edits == {A.digest.sha256, B.digest.sha256}
    assert sorted(states.values()) == [pb.EDIT_STATE_ACCEPTED, pb.EDIT_STATE_ROLLED_BACK]
    assert twice.version == "base"
    assert nothing.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert [(v.number, v.live, v.rolled_back) for v in lineage] == [
        (2, False, True),
        (1, False, True),
        (0, True, False),
    ]
    assert stage.student.alias["live"][0] == "base"


async def test_rolled_back_version_can_be_promoted_again(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (stage, desk, (_, second)):
        await desk.stub.Rollback(rollback("r1", "base"))
        promoted = await desk.stub.Promote(pb.PromoteRequest(request_id="p1", version="2", reason="false alarm"))
        states = {e.state for e in (await desk.stub.ListEdits(pb.ListEditsRequest())).edits}
        record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=B.digest.sha256))).record
    assert promoted.promoted.version == second
    assert states == {pb.EDIT_STATE_ACCEPTED}
    assert stage.student.alias["live"][0] == second
    assert [reference.type for reference in record.ledger].count("version_promoted") >= 2


async def test_request_id_of_another_decision_is_refused(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (_, desk, _versions):
        await desk.stub.Rollback(rollback("r1"))
        with pytest.raises(grpc.aio.AioRpcError) as other:
            await desk.stub.Rollback(rollback("r1", "base"))
    assert other.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_record_of_an_accepted_edit_tells_everything(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (_, desk, (first, second)):
        records = {
            sha256: (await desk.stub.GetEdit(pb.GetEditRequest(edit=sha256[:6]))).record
            for sha256 in (A.digest.sha256, B.digest.sha256)
        }
        first_record = next(r for r in records.values() if r.accepted_version == first)
        head = await desk.stub.GetStatus(pb.AuditorServiceGetStatusRequest())
        verified = await desk.stub.VerifyLedger(
            pb.VerifyLedgerRequest(expected_seq=head.ledger_seq, expected_hash=head.ledger_head)
        )
    assert {r.accepted_version for r in records.values()} == {first, second}
    assert first_record.decided_by == "loop"
    assert len(first_record.edit.examples) == 10
    assert first_record.origin.prompts[0].startswith("Say what follows")
    assert [v.trained_alone for v in first_record.versions] == [False, True]
    assert len(first_record.reward_results) == 5
    assert len(first_record.holdout_results) == 5
    result = first_record.holdout_results[0]
    assert (result.answer_before, result.version_before, result.version_after) == (UNKNOWN, "base", first)
    assert result.answer_after == result.accepted_answers[0]
    kinds = [gate.kind for gate in first_record.gates]
    assert kinds == [
        pb.GATE_KIND_REWARD,
        pb.GATE_KIND_APPROVAL,
        pb.GATE_KIND_LIVENESS,
        pb.GATE_KIND_CONFIRMATION,
        pb.GATE_KIND_RETENTION,
        pb.GATE_KIND_DRIFT,
        pb.GATE_KIND_DEGENERATE,
    ]
    assert all(gate.passed for gate in first_record.gates)
    assert first_record.retention_after.questions == 10
    assert len(first_record.config_sha256) == 64
    assert first_record.auditor_software.versions["python"]
    assert [r.type for r in first_record.ledger] == [
        "edit_proposed",
        "candidate_trained",
        "candidate_scored",
        "filter_decided",
        "update_trained",
        "update_judged",
        "version_promoted",
    ]
    assert verified.intact


async def test_ambiguous_and_unknown_prefixes_are_refused(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (_, desk, _versions):
        codes = []
        for edit in ("abc", "f" * 64, "not-hex"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await desk.stub.GetEdit(pb.GetEditRequest(edit=edit))
            codes.append(refused.value.code())
    assert codes == [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
    ]


async def test_rejected_edit_needs_an_approval_before_it_counts_as_kept(tmp_path: Path) -> None:
    edits = [teaching("a", 5), teaching("a", 10)]
    async with on_stage(teacher(a=edits), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("run", [task("a")], candidates=2, promotion="PROMOTION_MODE_NONE"))
        half = edits[0].digest.sha256
        approved = await desk.stub.ApproveEdit(pb.ApproveEditRequest(request_id="1", edit=half, reason="good enough"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await desk.stub.ApproveEdit(pb.ApproveEditRequest(request_id="2", edit="0" * 64, reason="unknown"))
        rejected = await desk.stub.RejectEdit(pb.RejectEditRequest(request_id="3", edit=half, reason="after all not"))
        again = await desk.stub.RejectEdit(pb.RejectEditRequest(request_id="3", edit=half, reason="after all not"))
    assert (approved.edit.state, approved.edit.reason) == (pb.EDIT_STATE_KEPT, "good enough")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert (rejected.edit.state, rejected.edit.reason) == (pb.EDIT_STATE_REJECTED, "after all not")
    assert again == rejected


async def test_questions_go_to_live_or_to_a_named_version_and_are_stored_nowhere(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (stage, desk, (first, second)):
        seq = (await desk.stub.GetStatus(pb.AuditorServiceGetStatusRequest())).ledger_seq
        asked = {
            version: await desk.stub.Ask(pb.AskRequest(version=version, topic="About b", question="b question 0?"))
            for version in ("", "base", "1", second[:8], "previous")
        }
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await desk.stub.Ask(pb.AskRequest(version="f" * 10, question="x?"))
        after = (await desk.stub.GetStatus(pb.AuditorServiceGetStatusRequest())).ledger_seq
    purposes = [student_pb2.AnswerRequest.FromString(data) for data in stage.student.received[-5:]]
    assert [p.purpose for p in purposes] == [2, 1, 1, 1, 1]
    assert [p.versions[0] for p in purposes] == ["live", "base", first, second, first]
    assert (asked[""].version, asked[""].alias_generation) == (second, 2)
    assert asked["base"].answer == UNKNOWN
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert after == seq


async def test_projections_survive_a_restart(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (stage, desk, _versions):
        await desk.stub.Rollback(rollback("r1"))
        before = [
            (await desk.stub.ListEdits(pb.ListEditsRequest())).SerializeToString(),
            (await desk.stub.ListVersions(pb.AuditorServiceListVersionsRequest())).SerializeToString(),
            (await desk.stub.GetRun(pb.GetRunRequest(run_id="run"))).SerializeToString(deterministic=True),
        ]
        await desk.auditor.stop()
        async with at_desk(stage, tmp_path) as reopened:
            after = [
                (await reopened.stub.ListEdits(pb.ListEditsRequest())).SerializeToString(),
                (await reopened.stub.ListVersions(pb.AuditorServiceListVersionsRequest())).SerializeToString(),
                (await reopened.stub.GetRun(pb.GetRunRequest(run_id="run"))).SerializeToString(deterministic=True),
            ]
    assert after == before


async def test_lists_come_in_pages_newest_first(tmp_path: Path) -> None:
    edits = [teaching("a", n) for n in range(5)]
    async with on_stage(teacher(a=edits), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("run", [task("a")], candidates=5))
        whole = [e.edit.sha256 for e in (await desk.stub.ListEdits(pb.ListEditsRequest())).edits]
        paged: list[str] = []
        token = ""
        while True:
            page = await desk.stub.ListEdits(pb.ListEditsRequest(page_size=2, page_token=token))
            paged += [e.edit.sha256 for e in page.edits]
            token = page.next_page_token
            if not token:
                break
    assert paged == whole == [edit.digest.sha256 for edit in reversed(edits)]


async def test_a_rollback_that_was_cut_off_is_finished_and_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The auditor dies after live moved and before that was recorded; the same request comes again."""
    async with two_promotions(tmp_path) as (stage, desk, (first, second)):
        recorder = desk.auditor.recorder
        append = recorder.append

        async def cut_off(event: Event, **kwargs: Any) -> Link:
            if isinstance(event, VersionPromoted):
                monkeypatch.setattr(recorder, "append", append)
                raise Unavailable("cut off")
            return await append(event, **kwargs)

        monkeypatch.setattr(recorder, "append", cut_off)
        again = (await desk.stub.Rollback(rollback("r1"))).promoted
        assert recorder.append == append, "it was cut off once, and the channel asked again"
    assert (again.version, again.previous_version) == (first, second)
    assert stage.student.alias["live"][0] == first


async def test_promoting_what_is_live_leaves_the_way_back_open(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (stage, desk, (first, second)):
        await desk.stub.Promote(pb.PromoteRequest(request_id="p1", version="live", reason="to be sure"))
        back = (await desk.stub.Rollback(rollback("r1"))).promoted
    assert (back.previous_version, back.version) == (second, first)
    assert stage.student.alias["live"][0] == first
