"""Lets any number of watchers follow a run: events from the ledger in order, then those to come, none twice.

The ledger is the only source of numbered events; an append merely wakes whoever waits, who then reads on from the last
number it has shown. So a watcher that comes late, falls behind or comes back misses nothing. Progress (number 0) is the
newest only: a slow watcher skips what is outdated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from auditor.events import EVENTS, TERMINAL, WATCHED, Event
from auditor.ledger.chain import Link

WATCHED_KINDS = frozenset(cls.kind for cls in WATCHED)
Read = Callable[[str, int], Awaitable[list[Link]]]
Ended = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Seen:
    """One event as a watcher sees it; seq 0 is progress."""

    seq: int
    time: datetime
    run_id: str
    event: Event


@dataclass
class _Watcher:
    run_id: str
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Event | None = None


class Watchers:
    """Who watches what. Lives on the event loop."""

    def __init__(self) -> None:
        self._watchers: list[_Watcher] = []

    def wake(self) -> None:
        """Something was appended."""
        for watcher in self._watchers:
            watcher.woken.set()

    def show(self, run_id: str, progress: Event) -> None:
        for watcher in self._watchers:
            if watcher.run_id == run_id:
                watcher.progress = progress
                watcher.woken.set()

    async def appends(self) -> AsyncIterator[None]:
        """One item after each append, or after several that came at once."""
        watcher = _Watcher(run_id="")
        self._watchers.append(watcher)
        try:
            while True:
                await watcher.woken.wait()
                watcher.woken.clear()
                yield
        finally:
            self._watchers.remove(watcher)

    async def follow(self, run_id: str, after_seq: int, read: Read, ended: Ended) -> AsyncIterator[Seen]:
        """Events of a run above `after_seq` until the run ends.

        read: the next events of a run above a number; ended: whether the run's last event is in the ledger.
        """
        watcher = _Watcher(run_id)
        self._watchers.append(watcher)
        try:
            while True:
                watcher.woken.clear()
                over = await ended()
                links = await read(run_id, after_seq)
                for link in links:
                    after_seq = link.seq
                    if link.type in WATCHED_KINDS:
                        yield Seen(link.seq, link.time, run_id, EVENTS[link.type].model_validate(link.payload))
                    if link.type in TERMINAL:
                        return
                if links:
                    continue
                if over:
                    return
                if watcher.progress is not None:
                    shown, watcher.progress = watcher.progress, None
                    yield Seen(0, datetime.now(UTC), run_id, shown)
                else:
                    await watcher.woken.wait()
        finally:
            self._watchers.remove(watcher)
