"""Live moves once at a time, and the ledger has every move in the order in which the student made it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from auditor.events import MoveIntended
from common.contract.seal.v1 import auditor_pb2 as pb
from common.errors import Unavailable
from tests.auditor.plays import GENERAL, Desk, at_desk, kinds, of_kind, start_run, student, task, teacher
from tests.auditor.test_decisions import A, B, rollback, two_promotions
from tests.support.scripted_services import ScriptedStudent, on_stage

# What a channel tries by itself, for two seconds at most (common/rpc/client.py).
CHANNEL_ATTEMPTS = 4


class Slow(ScriptedStudent):
    """Lets somebody do something before live moves, and when live has moved and previous has not."""

    async def before_live(self) -> None: ...

    async def before_previous(self) -> None: ...

    async def SetAlias(self, request: Any, context: Any) -> Any:
        await (self.before_previous() if request.name == "previous" else self.before_live())
        return await super().SetAlias(request, context)


async def shown_live(desk: Desk) -> list[str]:
    versions = (await desk.stub.ListVersions(pb.AuditorServiceListVersionsRequest())).versions
    return [entry.version for entry in versions if entry.live]


async def test_promotion_whose_answer_was_lost_is_recorded_before_the_next_move(tmp_path: Path) -> None:
    stand_in = student()
    stand_in.faults.lost["live"] = 1
    async with on_stage(teacher(a=[A]), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1))
        moved = stage.student.alias["live"]
        back = (await desk.stub.Rollback(rollback("r1"))).promoted
        record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=A.digest.sha256))).record
        run = (await desk.stub.GetRun(pb.GetRunRequest(run_id="run"))).run
    assert of_kind(events, "run_failed")[0].reason == "DEADLINE_EXCEEDED"
    assert (back.previous_version, back.version, back.generation) == (moved[0], "base", moved[1] + 1)
    assert (record.accepted_version, record.decided_by) == (moved[0], "loop")
    assert record.summary.state == pb.EDIT_STATE_ROLLED_BACK
    assert run.last_seq == events[-1].seq, "a run that is over gets no more events"


async def test_promotion_whose_answer_was_lost_is_recorded_at_the_next_start(tmp_path: Path) -> None:
    stand_in = student()
    stand_in.faults.lost["live"] = 1
    async with on_stage(teacher(a=[A]), stand_in) as stage:
        async with at_desk(stage, tmp_path) as desk:
            await desk.run(start_run("run", [task("a")], candidates=1))
            before = await shown_live(desk)
        async with at_desk(stage, tmp_path) as desk:
            for _ in range(500):
                after = await shown_live(desk)
                if after != before:
                    break
                await asyncio.sleep(0.02)
            edits = (await desk.stub.ListEdits(pb.ListEditsRequest())).edits
    assert (before, after) == (["base"], [stage.student.alias["live"][0]])
    assert [edit.state for edit in edits] == [pb.EDIT_STATE_ACCEPTED]


async def test_rollback_whose_answer_was_lost_is_recorded_and_not_made_again(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (stage, desk, (first, second)):
        stage.student.faults.lost["live"] = 1
        with pytest.raises(grpc.aio.AioRpcError):
            await desk.stub.Rollback(rollback("r1"))
        promoted = await desk.stub.Promote(pb.PromoteRequest(request_id="p1", version="2", reason="false alarm"))
        again = (await desk.stub.Rollback(rollback("r1"))).promoted
    assert (again.version, again.previous_version, again.generation) == (first, second, 3)
    assert (promoted.promoted.previous_version, promoted.promoted.generation) == (first, 4)
    assert stage.student.alias["live"] == (second, 4)


async def test_rollback_in_the_middle_of_a_promotion_waits_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = Slow(GENERAL)  # type: ignore[abstract] # the auditor calls no other RPC
    asked: list[Any] = []
    async with on_stage(teacher(a=[A], b=[B]), stand_in) as stage, at_desk(stage, tmp_path) as desk:

        async def ask() -> None:
            if not asked:
                asked.append(desk.stub.Rollback(rollback("r1")))
                await asyncio.sleep(0.3)

        monkeypatch.setattr(stand_in, "before_previous", ask)
        events = await desk.run(start_run("run", [task("a"), task("b")], candidates=1))
        back = (await asked[0]).promoted
        live = await shown_live(desk)
    first, second = [promoted.version for promoted in of_kind(events, "version_promoted")]
    assert (back.previous_version, back.version, back.generation) == (second, first, 3)
    assert stage.student.alias["live"] == (first, 3)
    assert live == [first]


async def test_run_that_is_cancelled_in_a_move_ends_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = Slow(GENERAL)  # type: ignore[abstract] # the auditor calls no other RPC
    asked: list[Any] = []
    async with on_stage(teacher(a=[A], b=[B]), stand_in) as stage, at_desk(stage, tmp_path) as desk:

        async def cancel_twice() -> None:
            asked.extend(desk.stub.CancelRun(pb.CancelRunRequest(run_id="run")) for _ in range(2))
            await asyncio.sleep(1.0)  # both have arrived by then

        monkeypatch.setattr(stand_in, "before_previous", cancel_twice)
        events = await desk.run(start_run("run", [task("a"), task("b")], candidates=1))
        states = {(await call).run.state for call in asked}
        live = await shown_live(desk)
    assert states == {pb.RUN_STATE_CANCELLED}
    assert kinds(events)[-2:] == ["version_promoted", "run_cancelled"]
    assert live == [of_kind(events, "version_promoted")[1].version] == [stage.student.alias["live"][0]]


async def test_edit_rejected_while_the_student_is_away_is_not_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = Slow(GENERAL)  # type: ignore[abstract] # the auditor calls no other RPC
    away: list[str] = []
    async with on_stage(teacher(a=[A]), stand_in) as stage, at_desk(stage, tmp_path) as desk:

        async def reject_and_break() -> None:
            away.append("call")
            edit = A.digest.sha256
            await desk.stub.RejectEdit(pb.RejectEditRequest(request_id="n", edit=edit, reason="no"))
            raise Unavailable("away for a while")

        monkeypatch.setattr(stand_in, "before_live", reject_and_break)
        events = await desk.run(start_run("run", [task("a")], candidates=1))
        live = await shown_live(desk)
    assert len(away) == CHANNEL_ATTEMPTS, "tried in one turn, and not in the next"
    assert not of_kind(events, "version_promoted")
    assert kinds(events)[-1] == "run_finished"
    assert (live, stage.student.alias["live"]) == (["base"], ("base", 0))


async def test_live_of_a_student_that_was_set_up_anew_is_found(tmp_path: Path) -> None:
    async with two_promotions(tmp_path) as (stage, desk, (_, second)):
        stage.student.alias = dict.fromkeys(stage.student.alias, ("base", 0))
        await desk.auditor.moves.settle(desk.auditor.crew.student)
        states = {edit.state for edit in (await desk.stub.ListEdits(pb.ListEditsRequest())).edits}
        found = await shown_live(desk)
        await desk.stub.Promote(pb.PromoteRequest(request_id="p1", version="2", reason="it was good"))
        live = await shown_live(desk)
        verdict = desk.auditor.recorder.ledger.verify()
    assert (found, states) == (["base"], {pb.EDIT_STATE_ROLLED_BACK})
    assert live == [second]
    assert stage.student.alias["live"] == (second, 1)
    assert verdict.intact


async def test_replica_that_is_behind_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditor.moves.BEHIND_SECONDS", 0.5)
    async with two_promotions(tmp_path) as (stage, desk, (first, second)):
        newest = stage.student.alias["live"]
        stage.student.alias["live"] = (first, newest[1] - 1)
        asyncio.get_running_loop().call_later(0.2, stage.student.alias.update, {"live": newest})
        await desk.auditor.moves.settle(desk.auditor.crew.student)
        assert stage.student.alias["live"] == newest
        states = {edit.state for edit in (await desk.stub.ListEdits(pb.ListEditsRequest())).edits}
        assert (await shown_live(desk), states) == ([second], {pb.EDIT_STATE_ACCEPTED})


def test_intent_of_an_older_ledger_is_still_read() -> None:
    intent = MoveIntended.model_validate({"version": "a", "previous_version": "b", "generation": 1, "content": "c"})
    assert (intent.step, intent.made) == ("", None)
