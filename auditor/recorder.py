"""The async door to the ledger: everything goes through one thread, in order, and each append wakes the watchers.

The event loop stays free while a disk syncs, and an append that was begun is finished even when its task is cancelled:
whatever is appended later stands behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import OperationalError

from auditor.events import Event
from auditor.ledger.chain import Link
from auditor.ledger.store import Ledger
from auditor.watch import Watchers
from common.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class Recorder:
    """One per process; journals, decisions and the run manager append through it."""

    def __init__(self, ledger: Ledger, watchers: Watchers) -> None:
        self.ledger = ledger
        self._watchers = watchers
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a blocking function of the ledger on its thread. Raises Unavailable when the database fails."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))
        except OperationalError as error:
            raise Unavailable(f"the ledger's database fails: {error.orig}") from error

    async def append(
        self, event: Event, *, run_id: str = "", step: str | None = None, payloads: Iterable[bytes | str] = ()
    ) -> Link:
        """Ledger.append, then everybody who watches looks again."""
        try:
            return await self.run(self.ledger.append, event, run_id=run_id, step=step, payloads=tuple(payloads))
        finally:
            self._watchers.wake()

    def progress(self, run_id: str, event: Event) -> None:
        """Shows watchers how far a step is; nothing is recorded."""
        self._watchers.show(run_id, event)

    def close(self) -> None:
        """Waits for what was begun."""
        self._thread.shutdown(wait=True)
