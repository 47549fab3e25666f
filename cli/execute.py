"""Runs a command's coroutine to its end, or to Ctrl-C or SIGTERM, after which everything it opened is closed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from cli.failure import EXIT_INTERRUPTED, Failure

ResultT = TypeVar("ResultT")


def execute(work: Coroutine[Any, Any, ResultT], *, interrupted: str = "interrupted", next_step: str = "") -> ResultT:
    """The coroutine's result. Raises Failure with exit code 130 if a signal ended it."""
    stopped = False

    async def guarded() -> ResultT:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)

        def stop() -> None:
            nonlocal stopped
            if not stopped:  # a second Ctrl-C must not cut off the closing that the first one began
                stopped = True
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        return await task

    try:
        return asyncio.run(guarded())
    except (asyncio.CancelledError, KeyboardInterrupt):
        if not stopped:
            raise
        raise Failure(interrupted, next_step, code=EXIT_INTERRUPTED, reason="INTERRUPTED") from None
