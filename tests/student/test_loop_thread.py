"""Asynchronous work asked for from a thread: results as they end, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from common.errors import Cancelled, Unavailable
from student.loop_thread import LoopThread


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("test")
    yield thread
    thread.close()
    thread.close()


class Work:
    """Notes which of it was cancelled."""

    def __init__(self) -> None:
        self.cancelled: list[int] = []

    async def after(self, seconds: float, number: int) -> int:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        return number

    async def fails(self) -> int:
        raise Unavailable("gone")


def test_results_come_in_the_order_in_which_they_end(thread: LoopThread) -> None:
    work = Work()
    assert list(thread.as_ended([work.after(0.2, 1), work.after(0.0, 2), work.after(0.1, 3)])) == [2, 3, 1]
    assert list(thread.as_ended([])) == []


def test_a_failure_ends_the_others(thread: LoopThread) -> None:
    work = Work()
    with pytest.raises(Unavailable):
        list(thread.as_ended([work.after(60, 1), work.fails()]))
    assert work.cancelled == [1]


def test_a_caller_who_calls_off_or_goes_away_leaves_nothing_under_way(thread: LoopThread) -> None:
    work = Work()
    with pytest.raises(Cancelled):
        list(thread.as_ended([work.after(60, 1)], cancelled=lambda: True))
    results = thread.as_ended([work.after(60, 2), work.after(0, 3)])
    assert next(results) == 3
    results.close()  # type: ignore[attr-defined]
    assert 2 in work.cancelled
