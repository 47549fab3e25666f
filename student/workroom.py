"""Where model work is done: on one thread, in turn with other heavy phases of the machine, with a sign of life.

Work runs off the event loop and says what it finds through a Desk. A caller that is cancelled stops its work at the
next step and waits for it, so that nothing ever runs on a model that somebody else believes to be free.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from common.errors import SealError
from common.jobs import Publish
from common.metrics import queued
from common.phase import HeavyPhase
from common.tracing import note, span
from common.types import Progress
from common.worker import ModelWorker
from student.metrics import QUEUE

HEARTBEAT_SECONDS = 3.0

EventT = TypeVar("EventT")
EventT_contra = TypeVar("EventT_contra", contravariant=True)
T = TypeVar("T")


class Desk(Generic[EventT_contra]):
    """What a piece of model work has at hand: it may speak from its thread, and notice that it is not wanted."""

    def __init__(self, phase: str, publish: Publish[EventT_contra | Progress], loop: asyncio.AbstractEventLoop) -> None:
        self._publish = publish
        self._loop = loop
        self._cancelled = threading.Event()
        self._phase = phase
        self._latest = Progress(phase="waiting")

    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()

    def say(self, event: EventT_contra) -> None:
        """Publishes a result."""
        self._loop.call_soon_threadsafe(self._publish, event)

    def progress(self, done: int, total: int, **figures: float) -> None:
        """Notes how far the work is; the workroom publishes it every few seconds."""
        self._latest = Progress(phase=self._phase, done=done, total=total, figures=figures)

    def beat(self) -> None:
        """Publishes the latest progress. Runs on the event loop."""
        self._publish(self._latest, keep=False)


class Workroom:
    """The model's thread and its turn on the machine. Owned by the student, closed at its end."""

    def __init__(self, phase: HeavyPhase) -> None:
        self._worker = ModelWorker("model")
        self._phase = phase
        self._no_phase = HeavyPhase()

    async def run(
        self,
        phase: str,
        work: Callable[[Desk[EventT]], T],
        publish: Publish[EventT | Progress],
        *,
        in_turn: bool = True,
    ) -> T:
        """Runs `work` when the model is free. Not `in_turn`, it does not wait for other processes' heavy phases."""
        desk: Desk[EventT] = Desk(phase, publish, asyncio.get_running_loop())
        desk.beat()
        beating = asyncio.create_task(_beat(desk))
        try:
            with span(phase), queued(QUEUE) as begins:
                async with (self._phase if in_turn else self._no_phase).hold(phase):
                    note("its turn")
                    return await self._carried_out(work, desk, begins)
        finally:
            beating.cancel()

    async def call(self, work: Callable[[], T]) -> T:
        """Runs something short that touches the model."""
        return await self._worker.run(work)

    async def _carried_out(
        self, work: Callable[[Desk[EventT]], T], desk: Desk[EventT], begins: Callable[[], None]
    ) -> T:
        def started() -> T:
            begins()
            desk.progress(0, 0)
            return work(desk)

        running = asyncio.ensure_future(self._worker.run(started))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            desk.cancel()
            with contextlib.suppress(SealError):
                await running
            raise

    def close(self) -> None:
        self._worker.close()


async def _beat(desk: Desk[EventT]) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        desk.beat()
