"""One order to the student, spread over its replicas: every replica works on one piece of it at a time.

A piece whose stream breaks is opened at its replica once more with the same id, which attaches to work that goes on;
then what is left of it goes to whoever is free. What comes twice is passed on once. auditor/spread_student.py uses it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass
from typing import Generic

from auditor.clients import GrpcStudent, wait_before
from auditor.config import Retries
from auditor.pieces import Cut, Event, OrderT, key_of
from auditor.ports import OnProgress
from common.errors import Cancelled, Overloaded, Unavailable
from common.lora.proof import Liveness, LivenessProof
from common.rpc.replicas import Replica, Replicas
from common.types import Progress

# How soon a replica that has just come gets work, while there is work that waits.
LOOK_AGAIN_SECONDS = 5.0
NOTHING_YET = Progress(phase="waiting")
# Not there, about to stop, or with as much to do as it takes: others may not be.
AWAY = (Unavailable, Cancelled, Overloaded)

Ask = Callable[[GrpcStudent, OrderT, OnProgress], AsyncIterator[Event]]


@dataclass(frozen=True)
class Spreading:
    """`client` talks to one replica and does not wait for it. At most `most` (0: all) work on one order."""

    replicas: Replicas
    client: Callable[[Replica], GrpcStudent]
    retries: Retries
    most: int = 0

    async def known(self) -> list[Replica]:
        """The replicas of now; a name without any is waited for. Raises Unavailable when the waits are used up."""
        for attempt in range(1, self.retries.attempts):
            try:
                return await self.replicas.known()
            except Unavailable:
                await asyncio.sleep(wait_before(attempt, self.retries))
        return await self.replicas.known()


@dataclass(eq=False)
class _Piece(Generic[OrderT]):
    """begun: its replica has said something. breaks: how often it broke after that; the work itself may be to blame."""

    order: OrderT
    breaks: int = 0
    begun: bool = False
    progress: Progress = NOTHING_YET


class Spread(Generic[OrderT]):
    """Call `hand_out` and read `events` in turn until nothing is left; then `close`."""

    def __init__(
        self, means: Spreading, order: OrderT, cut: Cut[OrderT], ask: Ask[OrderT], progress: OnProgress
    ) -> None:
        self._means = means
        self._cut: Cut[OrderT] = cut
        self._ask: Ask[OrderT] = ask
        self._report = progress
        self._order: OrderT | None = order
        self._waiting: deque[_Piece[OrderT]] = deque()
        self._running: dict[asyncio.Task[None], tuple[_Piece[OrderT], Replica]] = {}
        self._pieces: list[_Piece[OrderT]] = []
        self._queue: asyncio.Queue[Event | asyncio.Task[None]] = asyncio.Queue()
        self._seen: dict[Hashable, Event] = {}
        self._known: list[Replica] = []
        # How often in a row a replica went away without a result.
        self._away: Counter[str] = Counter()

    async def hand_out(self) -> bool:
        """Gives pieces to replicas that are free, the least busy first; whether anything is left to do."""
        self._known = await self._means.known()
        rested = [replica for replica in self._known if not replica.rest_left]
        most = min(len(rested), self._means.most or len(rested))
        if self._order is not None and rested:
            self._wait(self._cut.split(self._order, most))
            self._order = None
        busy = {replica.address for _, replica in self._running.values()}
        free = [replica for replica in rested if replica.address not in busy]
        free.sort(key=lambda replica: (self._away[replica.address], replica.in_flight))
        # One that is leaving still works on its piece; without a cap that takes nobody else's turn.
        for replica in free[: max(0, most - len(busy))] if self._means.most else free:
            if self._waiting:
                self._start(self._waiting.popleft(), replica)
        if not rested and not self._running:
            # Not for long: others may have come meanwhile.
            await asyncio.sleep(min(LOOK_AGAIN_SECONDS, *(replica.rest_left for replica in self._known)))
        return bool(self._order or self._waiting or self._running)

    async def events(self) -> AsyncIterator[Event]:
        """What is new until a piece ends or it is time to look for free replicas. Raises what ends the order."""
        while self._running:
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS if self._waiting else None):
                    item = await self._queue.get()
            except TimeoutError:
                return
            if isinstance(item, asyncio.Task):
                self._end(item)
                return
            if self._is_new(item):
                self._seen[key_of(item)] = item
                yield item

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _is_new(self, event: Event) -> bool:
        """A proof that fails where an earlier one did not is: whoever takes a piece over answers for the rest of it."""
        seen = self._seen.get(key_of(event))
        return seen is None or (_invalid(event) and not _invalid(seen))

    def _wait(self, orders: list[OrderT], breaks: int = 0) -> None:
        pieces = [_Piece(order, breaks) for order in orders]
        self._pieces += pieces
        self._waiting.extendleft(reversed(pieces))

    def _start(self, piece: _Piece[OrderT], replica: Replica) -> None:
        task = asyncio.create_task(self._carry_out(piece, replica), name=f"at {replica.address}")
        # Counted at once: another order may be handed out before the task has begun.
        replica.in_flight += 1
        self._running[task] = piece, replica

        def ended(task: asyncio.Task[None]) -> None:
            replica.in_flight -= 1
            self._queue.put_nowait(task)

        task.add_done_callback(ended)

    async def _carry_out(self, piece: _Piece[OrderT], replica: Replica) -> None:
        """Asks a replica, twice if its stream breaks: only the stream may have. Raises SealError."""

        def progress(latest: Progress) -> None:
            piece.begun, piece.progress = True, latest
            self._report(self._overall(latest))

        for again in (False, True):
            try:
                async for event in self._ask(self._means.client(replica), piece.order, progress):
                    piece.begun = True
                    if self._is_new(event):
                        piece.breaks = self._away[replica.address] = 0
                        self._queue.put_nowait(event)
                return
            except AWAY:
                if again:
                    raise
                await asyncio.sleep(wait_before(1, self._means.retries))

    def _overall(self, latest: Progress) -> Progress:
        done = sum(piece.progress.done for piece in self._pieces)
        total = sum(piece.progress.total for piece in self._pieces)
        return latest.model_copy(update={"done": done, "total": total})

    def _end(self, task: asyncio.Task[None]) -> None:
        """Takes back what a replica has left undone. Raises its error if nobody else is to be asked."""
        piece, replica = self._running.pop(task)
        error = task.exception()
        if error is None:
            return
        if not isinstance(error, AWAY):
            raise error
        retries = self._means.retries
        self._away[replica.address] += 1
        replica.rest(wait_before(self._away[replica.address], retries, error))
        breaks = piece.breaks + piece.begun
        if breaks >= retries.attempts or all(self._away[one.address] >= retries.attempts for one in self._known):
            raise error
        left = self._cut.left(piece.order, self._seen)
        piece.progress = piece.progress.model_copy(update={"total": piece.progress.done})
        if left is not None:
            # Those who are at work will be free at different times; what nobody has begun on stays as it is.
            self._wait(self._cut.split(left, max(1, len(self._running))) if piece.begun else [left], breaks)


def _invalid(event: Event) -> bool:
    return isinstance(event, LivenessProof) and event.liveness is Liveness.INVALID
