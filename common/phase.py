"""One heavy phase at a time on a small machine.

Two thread pools of linear algebra on the same few cores slow each other down many times over, so on one machine
generating, training and answering take turns, over all processes. On machines of their own the services run without a
lock. The lock is the operating system's: a killed holder frees it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from common.metrics import PHASE_WAIT_SECONDS, timed

POLL_SECONDS = 0.05
REPORT_SECONDS = 3.0


class HeavyPhase:
    """Takes turns with other processes through a lock file; free of effect without one."""

    def __init__(self, lock_path: Path | None = None) -> None:
        self._lock_path = lock_path
        self._turn = asyncio.Lock()  # within this process; the file lock works between processes
        if lock_path is not None:
            lock_path.parent.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def hold(self, phase: str, waiting: Callable[[], None] | None = None) -> AsyncIterator[None]:
        """Holds the machine for `phase`; calls `waiting` every few seconds until it is free."""
        if self._lock_path is None:
            with timed(phase):
                yield
            return
        lock = FileLock(self._lock_path, thread_local=False)
        started = reported = time.monotonic()
        async with self._turn:
            while True:
                try:
                    lock.acquire(timeout=0)
                    break
                except Timeout:
                    await asyncio.sleep(POLL_SECONDS)
                if waiting is not None and time.monotonic() - reported > REPORT_SECONDS:
                    waiting()
                    reported = time.monotonic()
            PHASE_WAIT_SECONDS.labels(phase).inc(time.monotonic() - started)
            try:
                with timed(phase):
                    yield
            finally:
                lock.release()
