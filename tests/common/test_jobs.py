"""A stream may break at any moment: the work goes on, and who asks again misses nothing."""

from __future__ import annotations

import asyncio

import pytest

from common.canonical import digest_of
from common.errors import Conflict, NotPossible
from common.jobs import Jobs, Publish

CONTENT = digest_of("content")


class Counter:
    """Publishes 0..n-1 and counts how often it was started."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.starts = 0

    async def work(self, publish: Publish[int]) -> None:
        self.starts += 1
        for number in range(self.n):
            publish(number)
            await asyncio.sleep(0)


async def test_late_follower_gets_every_event_and_work_runs_once() -> None:
    jobs, counter = Jobs[int](), Counter(20)
    first = jobs.attach("r", CONTENT, counter.work)
    assert [await anext(first) for _ in range(3)] == [0, 1, 2]
    await first.aclose()  # type: ignore[attr-defined]
    assert [event async for event in jobs.attach("r", CONTENT, counter.work)] == list(range(20))
    assert [event async for event in jobs.attach("r", CONTENT, counter.work)] == list(range(20))
    assert counter.starts == 1


async def test_progress_is_not_replayed() -> None:
    async def work(publish: Publish[str]) -> None:
        publish("progress", keep=False)
        publish("result")

    jobs = Jobs[str]()
    assert "result" in [event async for event in jobs.attach("r", CONTENT, work)]
    assert [event async for event in jobs.attach("r", CONTENT, work)] == ["result"]


async def test_same_id_with_other_content_is_refused() -> None:
    jobs, counter = Jobs[int](), Counter(1)
    assert [event async for event in jobs.attach("r", CONTENT, counter.work)] == [0]
    with pytest.raises(Conflict):
        await anext(jobs.attach("r", digest_of("other"), counter.work))


async def test_failure_reaches_every_follower_and_a_new_call_tries_again() -> None:
    attempts = 0

    async def work(publish: Publish[int]) -> None:
        nonlocal attempts
        attempts += 1
        publish(attempts)
        await asyncio.sleep(0)
        if attempts == 1:
            raise NotPossible("not yet")

    async def follow() -> list[int]:
        return [event async for event in jobs.attach("r", CONTENT, work)]

    jobs = Jobs[int]()
    outcomes = await asyncio.gather(follow(), follow(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NotPossible, NotPossible]
    assert await follow() == [2]


async def test_finished_jobs_are_forgotten_at_the_bound() -> None:
    jobs, counter = Jobs[int](keep_finished=2), Counter(1)
    for name in "abcd":
        assert [event async for event in jobs.attach(name, CONTENT, counter.work)] == [0]
    assert [event async for event in jobs.attach("a", CONTENT, counter.work)] == [0]
    assert counter.starts == 5
