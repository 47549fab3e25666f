"""Some things at a time, results as they come. The judge and the command grader use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def pooled(
    work: Callable[[T], Awaitable[R]], values: Sequence[T], at_once: int
) -> AsyncGenerator[tuple[int, R], None]:
    """(place, result) of every value, at most `at_once` under way.

    After the first error nothing new begins; what was under way is still passed on, then the error is raised. Closed
    early, it cancels what is under way and waits for it.
    """
    waiting = iter(enumerate(values))
    running: dict[asyncio.Task[R], int] = {}
    failure: BaseException | None = None
    try:
        while True:
            for place, value in islice(waiting, 0 if failure else at_once - len(running)):
                running[asyncio.ensure_future(work(value))] = place
            if not running:
                break
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                place = running.pop(task)
                if (error := task.exception()) is not None:
                    failure = failure or error
                else:
                    yield place, task.result()
        if failure is not None:
            raise failure
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
