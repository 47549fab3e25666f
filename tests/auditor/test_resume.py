"""A killed auditor goes on where it was: the same outcome, nothing trained, learned or promoted twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from auditor.events import Event
from auditor.ledger.chain import Link
from auditor.ledger.store import Ledger
from common.contract.seal.v1 import auditor_pb2 as pb
from common.types import Digest
from tests.auditor.plays import at_desk, kinds, of_kind, start_run, student, task, teacher, teaching
from tests.support.scripted_services import Stage, on_stage

# Events of the run below, from RunRequested to RunFinished; the fixture `unbroken` holds it to that.
EVENTS = 41


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the auditor may catch it and carry on."""


def die_at(ledger: Ledger, number: int, *, before: bool) -> asyncio.Event:
    """From the given append on, nothing reaches the ledger; `before`: not even that one, though its effect happened."""
    original, died, loop = ledger.append, asyncio.Event(), asyncio.get_running_loop()
    count = 0

    def append(event: Event, **kwargs: Any) -> Link:
        nonlocal count
        count += 1
        if count > number or (before and count == number):
            loop.call_soon_threadsafe(died.set)
            raise Killed
        link = original(event, **kwargs)
        if count == number:
            loop.call_soon_threadsafe(died.set)
            raise Killed
        return link

    ledger.append = append  # type: ignore[method-assign]
    return died


def order() -> pb.StartRunRequest:
    """Small tasks, so that the winners are pooled; every update is audited with its splits swapped."""
    return start_run("run", [task("a", 4), task("b", 4)], candidates=2, level=0.1, cross_split_share=1)


def play() -> Any:
    script = {name: [teaching(name, 0, of=4), teaching(name, 4, of=4)] for name in "ab"}
    return on_stage(teacher(**script), student())


def outcome(stage: Stage, events: list[pb.RunEvent]) -> tuple[Any, ...]:
    run = of_kind(events, "run_finished")[0].run
    run.ClearField("start_time")
    run.ClearField("end_time")
    run.ClearField("last_seq")
    told = [kind for kind in kinds(events) if kind != "run_resumed"]
    return stage.outcome(), stage.student.alias, told, run.SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    async def run() -> tuple[Any, ...]:
        folder = tmp_path_factory.mktemp("unbroken")
        async with play() as stage, at_desk(stage, folder) as desk:
            events = await desk.run(order())
            assert desk.auditor.recorder.ledger.head()[0] == EVENTS
            return outcome(stage, events)

    return asyncio.run(run())


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("number", range(2, EVENTS + 1))
async def test_run_survives_a_kill_at_every_event(
    tmp_path: Path, unbroken: tuple[Any, ...], number: int, before: bool
) -> None:
    async with play() as stage:
        async with at_desk(stage, tmp_path) as desk:
            died = die_at(desk.auditor.recorder.ledger, number, before=before)
            await desk.stub.StartRun(order())
            await asyncio.wait_for(died.wait(), 30)
        async with at_desk(stage, tmp_path) as desk:
            events = await desk.watch("run")
            verdict = desk.auditor.recorder.ledger.verify()
    assert verdict.intact, verdict.detail
    assert outcome(stage, events) == unbroken
    assert max(stage.student.trainings.values()) == 1
    assert len(stage.student.moves) == len(set(stage.student.moves))


async def test_resumed_run_says_so_and_asks_nothing_it_has_the_answer_to(tmp_path: Path) -> None:
    async with play() as stage:
        async with at_desk(stage, tmp_path) as desk:
            died = die_at(desk.auditor.recorder.ledger, 20, before=False)
            await desk.stub.StartRun(order())
            await asyncio.wait_for(died.wait(), 30)
        async with at_desk(stage, tmp_path) as desk:
            events = await desk.watch("run")
    assert of_kind(events, "run_resumed")[0].from_seq == 20
    assert max(stage.student.asked.values()) == 1


async def test_student_that_changed_fails_the_resumed_run(tmp_path: Path) -> None:
    async with play() as stage:
        async with at_desk(stage, tmp_path) as desk:
            died = die_at(desk.auditor.recorder.ledger, 10, before=False)
            await desk.stub.StartRun(order())
            await asyncio.wait_for(died.wait(), 30)
        original = stage.student.GetStatus

        async def other_template(request: Any, context: Any) -> Any:
            status = await original(request, context)
            status.prompt_template_digest.sha256 = Digest(sha256="4" * 64).sha256
            return status

        stage.student.GetStatus = other_template
        async with play_again(stage) as again, at_desk(again, tmp_path) as desk:
            events = await desk.watch("run")
    assert of_kind(events, "run_failed")[0].reason == "STUDENT_CHANGED"


def play_again(stage: Stage) -> Any:
    """The same services behind new servers."""
    return on_stage(stage.teacher, stage.student)


async def test_cancelled_run_ends_and_is_not_resumed(tmp_path: Path) -> None:
    async with play() as stage:
        async with at_desk(stage, tmp_path) as desk:
            await desk.stub.StartRun(order())
            await desk.stub.StartRun(start_run("waiting", [task("a", 4)], candidates=1))
            waiting = (await desk.stub.CancelRun(pb.CancelRunRequest(run_id="waiting"))).run
            active = (await desk.stub.CancelRun(pb.CancelRunRequest(run_id="run"))).run
            again = (await desk.stub.CancelRun(pb.CancelRunRequest(run_id="run"))).run
        async with at_desk(stage, tmp_path) as desk:
            events = await desk.watch("run")
    assert {waiting.state, active.state, again.state} == {pb.RUN_STATE_CANCELLED}
    assert kinds(events)[-1] == "run_cancelled"
    assert of_kind(events, "run_cancelled")[0].decided_by == "operator"
