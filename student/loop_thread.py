"""An event loop on a thread of its own, for a library that is asynchronous and whose start takes its time.

The service's own loop then goes on answering health checks. The model's thread hands work over and waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from common.errors import Cancelled

# How soon a cancelled caller is noticed.
POLL_SECONDS = 0.1

T = TypeVar("T")


class LoopThread:
    """Called from any other thread; `close` ends it."""

    def __init__(self, name: str) -> None:
        opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=asyncio.run, args=(_open(opened),), name=name, daemon=True)
        self._thread.start()
        self._loop, self._closing = opened.result()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carries it out on the loop and waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def as_ended(
        self, works: Sequence[Coroutine[Any, Any, T]], cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[T]:
        """Carries all out at the same time; their results as they end.

        Raises what the first failing one raises, and Cancelled; either way, and when the iterator is closed, the others
        are cancelled and have ended.
        """
        ended: SimpleQueue[asyncio.Task[T]] = SimpleQueue()

        async def begin() -> list[asyncio.Task[T]]:
            tasks = [asyncio.create_task(work) for work in works]
            for task in tasks:
                task.add_done_callback(ended.put)
            return tasks

        tasks = self.run(begin())
        try:
            for _ in tasks:
                yield _next(ended, cancelled).result()
        finally:
            self.run(_call_off(tasks))

    def close(self) -> None:
        """Cancels what is under way and ends the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()


async def _open(opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    closing = asyncio.Event()
    opened.set_result((asyncio.get_running_loop(), closing))
    await closing.wait()


async def _call_off(tasks: Sequence[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _next(ended: SimpleQueue[asyncio.Task[T]], cancelled: Callable[[], bool]) -> asyncio.Task[T]:
    while not cancelled():
        try:
            return ended.get(timeout=POLL_SECONDS)
        except Empty:
            continue
    raise Cancelled("answering was called off")
