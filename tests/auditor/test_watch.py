"""A watcher may come late, go away and come back: it sees each event once, in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from common.contract.seal.v1 import auditor_pb2 as pb
from tests.auditor.plays import at_desk, kinds, start_run, student, task, teacher, teaching
from tests.support.scripted_services import on_stage


async def test_dropped_watcher_comes_back_and_sees_each_event_once(tmp_path: Path) -> None:
    seen: list[int] = []
    edits = [teaching("a", n) for n in (0, 5, 10)]
    async with on_stage(teacher(a=edits), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.stub.StartRun(start_run("run", [task("a")]))
        while True:
            call = desk.stub.WatchRun(pb.WatchRunRequest(run_id="run", after_seq=seen[-1] if seen else 0), timeout=60)
            taken = 0
            async for response in call:
                if response.event.seq:
                    seen.append(response.event.seq)
                    taken += 1
                    last = response.event.WhichOneof("event")
                if taken == 4:
                    call.cancel()
                    break
            if taken < 4 or last == "run_finished":
                break
        whole = await desk.watch("run")
    assert seen == [event.seq for event in whole]
    assert kinds(whole)[-1] == "run_finished"


async def test_run_goes_on_without_a_watcher(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        call = desk.stub.WatchRun(pb.WatchRunRequest(run_id="run"))
        await desk.stub.StartRun(start_run("run", [task("a")], candidates=1))
        call.cancel()
        await desk.auditor.runs.idle()
        run = (await desk.stub.GetRun(pb.GetRunRequest(run_id="run"))).run
    assert run.state == pb.RUN_STATE_FINISHED
    assert stage.student.moves


async def test_many_watchers_see_the_same(tmp_path: Path) -> None:
    edits = [teaching("a", n) for n in (0, 5, 10)]
    async with on_stage(teacher(a=edits), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.stub.StartRun(start_run("run", [task("a")]))
        watched = await asyncio.gather(*(desk.watch("run", after) for after in (0, 0, 3, 10)))
    assert watched[0] == watched[1]
    for after, events in zip((0, 0, 3, 10), watched, strict=True):
        assert [e.seq for e in events] == [e.seq for e in watched[0] if e.seq > after]


async def test_watching_after_the_end_ends_at_once(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1))
        assert await desk.watch("run", events[-1].seq) == []
        assert await desk.watch("run", events[-1].seq + 100) == []
        assert kinds(await desk.watch("run", events[-2].seq)) == ["run_finished"]


async def test_watchers_see_progress_without_a_number(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.stub.StartRun(start_run("run", [task("a")], candidates=1))
        request = pb.WatchRunRequest(run_id="run")
        progress = [r.event.progress async for r in desk.stub.WatchRun(request, timeout=60) if r.event.seq == 0]
    assert {p.phase for p in progress} <= {"proposing", "training", "answering", "learning"}
    assert progress


async def test_unknown_run_is_not_found(tmp_path: Path) -> None:
    async with on_stage(teacher(), student()) as stage, at_desk(stage, tmp_path) as desk:
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await desk.watch("nothing")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
