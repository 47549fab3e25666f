"""The moves of live: one at a time, whoever orders them, and every one in the ledger.

A move is written down as intended, made at the student by compare-and-swap, and written down as made. Its answer may
be lost, or the auditor killed, after live has moved: so whoever moves live takes a turn, and a turn begins by comparing
the student's live with the ledger's and recording what is missing. Moves therefore stand in the ledger in the order in
which the student made them. auditor/promotion.py and auditor/decisions.py take turns; auditor/runs.py settles before
each run, auditor/service.py at the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from auditor.events import LiveFound
from auditor.peers import PREVIOUS, AliasOrder, StudentStatus
from auditor.ports import Student
from auditor.projections import Views
from auditor.recorder import Recorder
from auditor.views import OpenMove
from common.canonical import digest_of
from common.errors import Cancelled, Conflict, SealError, Unavailable

T = TypeVar("T")
log = structlog.get_logger("moves")

ATTEMPTS = 5
PAUSE_SECONDS = 0.2
# A replica may show aliases as they were a second ago.
BEHIND_SECONDS = 1.2


class Moves:
    """One per process. `student` asks once and does not wait for one that is away: others wait for their turn."""

    def __init__(self, recorder: Recorder, views: Views, student: Student) -> None:
        self._recorder = recorder
        self._views = views
        self._student = student
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Student]:
        """Until the block ends nobody else moves live; all moves before it are recorded.

        Gives the student to move it at. Raises Unavailable or Expired when the student does not answer.
        """
        async with self._lock:
            await self._settle()
            yield self._student

    async def when_possible(self, patient: Student, work: Callable[[Student], Awaitable[T]]) -> T:
        """Runs `work` in a turn, and again in another when the student went away in it.

        A student that is away is waited for out of turn, with the patience of `patient`: operators hear at once that it
        is away, and may decide meanwhile. Raises Unavailable or Cancelled when patience ends.
        """
        for attempt in range(ATTEMPTS):
            await patient.status()
            try:
                async with self.turn() as student:
                    return await work(student)
            except (Unavailable, Cancelled):
                if attempt == ATTEMPTS - 1:
                    raise
            await asyncio.sleep(PAUSE_SECONDS * 2**attempt)
        raise AssertionError("ATTEMPTS is at least 1")

    async def settle(self, patient: Student) -> None:
        """Records what live did and the ledger does not have. Raises as `when_possible` does."""

        async def nothing(_: Student) -> None:
            return None

        await self.when_possible(patient, nothing)

    async def _settle(self) -> None:
        """A move that was not made stays open: it may be under way still."""
        student = self._student
        status = await student.status()
        if status.live.generation < (await self._views.current()).generation:
            await asyncio.sleep(BEHIND_SECONDS)
            status = await student.status()
        live, views = status.live, await self._views.current()
        move = views.open_moves.get((live.version, live.generation))
        if move is not None:
            await self._complete(student, move, over=move.run_id in views.runs and views.runs[move.run_id].ended)
        elif live.version != views.live or live.generation < views.generation:
            await self._found(status)

    async def _complete(self, student: Student, move: OpenMove, *, over: bool) -> None:
        """An intended move that was made. A run that is over gets no more events: the move stands beside it."""
        run_id, step = ("", None) if over else (move.run_id, move.step)
        try:
            await self._recorder.append(move.made, run_id=run_id, step=step)
        except Conflict:
            # The run gave the move up while it was under way: it stands beside the run.
            await self._recorder.append(move.made)
        log.warning("a move of live was found made", version=move.made.version, generation=move.made.generation)
        await name_previous(student, move.made.previous_version)

    async def _found(self, status: StudentStatus) -> None:
        """Nothing in the ledger leads there: another hand moved it, or one of the two was set up anew."""
        live, previous = status.live, status.alias(PREVIOUS)
        event = LiveFound(
            version=live.version,
            previous_version=previous.version if previous else "",
            generation=live.generation,
            reason="found live at the student; no recorded move leads there",
        )
        await self._recorder.append(event)
        log.warning("live was moved by another hand", version=live.version, generation=live.generation)


async def name_previous(student: Student, version: str) -> None:
    """previous names what was live. Live has moved by now and must be recorded: what fails here is left as it is."""
    try:
        previous = (await student.status()).alias(PREVIOUS)
        if previous is not None and previous.version == version:
            return
        seen = previous.generation if previous else 0
        await student.set_alias(
            AliasOrder(
                request_id=f"previous-{digest_of([version, seen]).sha256}",
                name=PREVIOUS,
                version=version,
                expected_generation=seen,
            )
        )
    except SealError as error:
        log.warning("the alias previous was not moved", version=version, reason=error.reason)


async def uninterrupted(step: Coroutine[Any, Any, T]) -> T:
    """A step whose effect and event belong together: whoever is cancelled meanwhile, once or more, ends after it."""
    task = asyncio.ensure_future(step)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is None:
        return task.result()
    if not task.cancelled() and (failed := task.exception()) is not None:
        log.warning("an interrupted step failed", reason=type(failed).__name__, exc_info=failed)
    raise interrupted
