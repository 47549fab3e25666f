"""A watcher misses nothing and doubles nothing, however the connection breaks."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli import watcher
from cli.client import NoAnswer, auditor
from cli.failure import Failure
from common.contract.seal.v1 import auditor_pb2 as pb
from tests.cli.conftest import Seal
from tests.cli.scripted_auditor import ScriptedAuditor, recorded_events, start_server

ALL = [event.seq for event in recorded_events()]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "FIRST_PAUSE_SECONDS", 0.01)


async def watched(target: str, *, run_id: str = "run-1", after: int = 0, patience: float = 20.0) -> list[pb.RunEvent]:
    async with auditor(target) as service:
        events = watcher.watch(service, run_id, after_seq=after, patience_seconds=patience)
        return [event async for event in events]


def recorded(events: list[pb.RunEvent]) -> list[int]:
    return [event.seq for event in events if event.seq]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, len(ALL) - 1), max_size=4),
    overlap=st.integers(0, 3),
    after=st.sampled_from([0, *ALL[:-1]]),
)
def test_every_event_comes_once_and_in_order_whatever_breaks(cuts: list[int], overlap: int, after: int) -> None:
    async def scenario() -> list[int]:
        server, target = await start_server(ScriptedAuditor(cuts=[cut + overlap for cut in cuts], overlap=overlap))
        try:
            return recorded(await watched(target, after=after))
        finally:
            await server.stop(None)

    assert asyncio.run(scenario()) == [seq for seq in ALL if seq > after]


async def test_progress_is_passed_on() -> None:
    server, target = await start_server(ScriptedAuditor())
    events = await watched(target)
    await server.stop(None)
    assert sum(event.WhichOneof("event") == "progress" for event in events) == len(ALL)


async def test_an_auditor_that_is_killed_and_started_again_is_found_again() -> None:
    class Stalling(ScriptedAuditor):
        async def WatchRun(self, request, context):  # type: ignore[no-untyped-def]
            async for response in super().WatchRun(request, context):
                yield response
                if response.event.seq == ALL[4]:
                    await asyncio.Event().wait()

    server, target = await start_server(Stalling())
    seen: list[int] = []
    reached = asyncio.Event()

    async def watch() -> None:
        async with auditor(target) as service:
            async for event in watcher.watch(service, "run-1", patience_seconds=20):
                if event.seq:
                    seen.append(event.seq)
                if event.seq == ALL[4]:
                    reached.set()

    watching = asyncio.create_task(watch())
    await asyncio.wait_for(reached.wait(), 10)
    await server.stop(None)
    again = ScriptedAuditor()
    server, _ = await start_server(again, target)
    await asyncio.wait_for(watching, 30)
    await server.stop(None)
    assert seen == ALL
    assert again.watched_after == [ALL[4]]


async def test_patience_has_an_end() -> None:
    server, target = await start_server(ScriptedAuditor(cuts=[3] + [0] * 100))
    with pytest.raises(Failure, match="cut off"):
        await watched(target, patience=0.5)
    await server.stop(None)


async def test_the_watchers_own_deadline_is_no_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "STREAM_SECONDS", 0.3)
    servicer = ScriptedAuditor(quiet_seconds=1.0)
    server, target = await start_server(servicer)
    breaks: list[None] = []
    async with auditor(target) as service:
        events = watcher.watch(service, "run-1", broken=lambda: breaks.append(None))
        assert recorded([event async for event in events]) == ALL
    await server.stop(None)
    assert len(servicer.watched_after) > 1
    assert breaks == []


async def test_nothing_is_waited_for_behind_the_end_of_a_run() -> None:
    servicer = ScriptedAuditor()
    server, target = await start_server(servicer)
    assert recorded(await watched(target, after=ALL[-1], patience=600)) == []
    await server.stop(None)
    assert len(servicer.watched_after) == 1


async def test_a_run_that_does_not_exist_is_no_reason_to_wait() -> None:
    server, target = await start_server(ScriptedAuditor())
    with pytest.raises(Failure, match="no run other"):
        await watched(target, run_id="other", patience=600)
    await server.stop(None)


async def test_nobody_there_from_the_start_is_said_at_once() -> None:
    with pytest.raises(NoAnswer):
        await watched("127.0.0.1:1", patience=600)


def test_the_watch_command_goes_on_behind_a_break(asked: Seal, servicer: ScriptedAuditor) -> None:
    servicer.cuts = [5, 2]
    outcome = asked("watch", "run-1", "--json")
    assert [event["seq"] for event in outcome.objects if event["seq"]] == ALL
    assert servicer.watched_after == [0, ALL[4], ALL[6]]
