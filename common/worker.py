"""A thread for model work, so that health checks answer while a model trains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ModelWorker:
    """One thread: what runs on it never overlaps. Owned by a service, closed at its end."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` on the thread and waits for it without holding up the event loop.

        A cancelled caller does not stop the thread: give `work` a way to notice that it is no longer wanted.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Waits for the work under way and drops what is queued."""
        self._executor.shutdown(wait=True, cancel_futures=True)
