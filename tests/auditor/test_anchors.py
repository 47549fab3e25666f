"""Anchors: a frozen base that answers otherwise than it did means that evaluation itself has drifted."""

from __future__ import annotations

from pathlib import Path

from common.contract.seal.v1 import auditor_pb2 as pb
from tests.auditor.plays import CAPITALS, Desk, at_desk, of_kind, start_run, student, task, teacher, teaching
from tests.support.scripted_services import UNKNOWN, on_stage

ANCHORS = {"anchors": 10}


async def one_run(desk: Desk, name: str, **changes: object) -> list[pb.RunEvent]:
    return await desk.run(start_run(name, [task("a")], candidates=1, health=ANCHORS, **changes))


async def test_base_that_answers_as_it_did_is_asked_twice_and_the_run_goes_on(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await one_run(desk, "one")
    (measured,) = of_kind(events, "anchors_measured")
    assert (measured.first.correct, measured.now.correct, measured.repeated.correct) == (10, 10, 10)
    assert (measured.changed, measured.unstable, measured.drifted) == (0, 0, False)
    assert of_kind(events, "run_finished")
    # Once for the baseline, which the retention gate uses too, and twice as anchors.
    assert max(stage.student.asked.values()) == 3


async def test_base_that_moved_stops_the_run_until_its_drift_is_accepted(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        await one_run(desk, "one")
        await desk.stub.Rollback(pb.RollbackRequest(request_id="back", reason="again", version="base"))
        stage.student.knows[next(iter(CAPITALS))] = UNKNOWN
        stopped = await one_run(desk, "two")
        accepted = await one_run(desk, "three", accept_drift=True)
        later = await one_run(desk, "four")
    (failed,) = of_kind(stopped, "run_failed")
    assert failed.reason == "EVALUATION_DRIFTED"
    assert "1 of 10 anchor questions" in failed.detail
    assert of_kind(stopped, "anchors_measured")[0].drifted
    assert not of_kind(stopped, "edit_proposed")
    assert of_kind(accepted, "anchors_measured")[0].accepted
    # From then on the base is what it is now: nine of ten, also in what the gates compare with.
    assert of_kind(accepted, "update_judged")[0].retention_before.correct == 9
    (measured,) = of_kind(later, "anchors_measured")
    assert (measured.first.correct, measured.drifted) == (9, False)
