"""What operators see of the auditor's process: a check of the chain, a run's progress, what a judge cost."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from auditor import metrics
from auditor.journal import Journal
from auditor.ledger.chain import Verdict
from common.types import Progress
from tests.auditor.plays import at_desk, start_run, student, task, teacher, teaching
from tests.support.scripted_services import on_stage


def value(name: str) -> float:
    found = REGISTRY.get_sample_value(name)
    assert found is not None, name
    return found


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set after each check of the chain."""
    event, note = asyncio.Event(), metrics.verified

    def verified(verdict: Verdict) -> None:
        note(verdict)
        event.set()

    monkeypatch.setattr(metrics, "verified", verified)
    return event


async def test_the_chain_is_checked_at_every_start_and_damage_shows(tmp_path: Path, checked: asyncio.Event) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage:
        async with at_desk(stage, tmp_path) as desk:
            await desk.run(start_run("run", [task("a")], candidates=1))
            await checked.wait()
            assert value("seal_ledger_intact") == 1
            assert value("seal_ledger_last_verified_timestamp_seconds") == pytest.approx(time.time(), abs=60)
        with sqlite3.connect(tmp_path / "ledger.db") as database:
            for (trigger,) in database.execute("select name from sqlite_master where type = 'trigger'").fetchall():
                database.execute(f"drop trigger {trigger}")
            database.execute("update events set time = '2020-01-01T00:00:00+00:00' where seq = 2")
        database.close()
        checked.clear()
        async with at_desk(stage, tmp_path):
            await checked.wait()
            assert value("seal_ledger_intact") == 0


async def test_a_run_shows_when_it_last_got_further_and_a_peer_that_repeats_itself_does_not(tmp_path: Path) -> None:
    async with on_stage(teacher(), student()) as stage, at_desk(stage, tmp_path) as desk:
        show = (await Journal.open(desk.auditor.recorder, "run")).progress("training", 1, "a")
        show(Progress(phase="training", done=1, total=4))
        metrics.RUN_PROGRESS.set(7)
        show(Progress(phase="training", done=1, total=4))
        assert value("seal_run_last_progress_timestamp_seconds") == 7
        show(Progress(phase="training", done=1, total=4, figures={"step": 3.0}))
        assert value("seal_run_last_progress_timestamp_seconds") > 7


async def test_runs_that_wait_and_the_one_under_way_are_told_apart(tmp_path: Path) -> None:
    stand_in = student()
    training, go_on = asyncio.Event(), asyncio.Event()
    original = stand_in.Train

    async def held(request: object, context: object) -> object:
        training.set()
        await go_on.wait()
        async for response in original(request, context):  # type: ignore[arg-type]
            yield response

    stand_in.Train = held  # type: ignore[assignment,method-assign]
    async with on_stage(teacher(a=[teaching("a", 10)]), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        for name in ("first", "second", "third"):
            await desk.stub.StartRun(start_run(name, [task("a")], candidates=1))
        await training.wait()
        assert (value("seal_queue"), value("seal_run_active")) == (2, 1)
        go_on.set()
        await desk.auditor.runs.idle()
        assert (value("seal_queue"), value("seal_run_active")) == (0, 0)
