"""Makes the loop durable: a step that the ledger has is answered from it, any other is computed, appended and returned.

A killed auditor runs the same code from the top; steps come back from the ledger until the first that is missing. Two
rules make that safe. Steps are named by what they are about, never by the clock or a counter of calls; and whatever a
step does outside (train, move an alias) carries a request id that derives from run and content, so that a step whose
effect happened but whose event was lost finds its effect in place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from auditor.events import EVENTS, Event, RunProgress
from auditor.metrics import RUN_PROGRESS
from auditor.recorder import Recorder
from common.canonical import canonical_json, digest_of
from common.types import Progress

EventT = TypeVar("EventT", bound=Event)


@dataclass(frozen=True)
class Kept(Generic[EventT]):
    """An event, and the payloads (bytes, or digests of stored ones) that it names."""

    event: EventT
    payloads: tuple[bytes | str, ...]


class Journal:
    """The steps of one run. Open one with `Journal.open`."""

    def __init__(self, recorder: Recorder, run_id: str, done: dict[str, Event]) -> None:
        self._recorder = recorder
        self._done = done
        self.run_id = run_id

    @classmethod
    async def open(cls, recorder: Recorder, run_id: str) -> Journal:
        """Reads which steps of the run are done."""
        journal = cls(recorder, run_id, {})
        await journal.read_again()
        return journal

    async def read_again(self) -> None:
        """Takes up steps that somebody else completed."""
        ledger, run_id = self._recorder.ledger, self.run_id
        links = await self._recorder.run(lambda: list(ledger.every_event(run_id=run_id)))
        self._done = {
            link.step: EVENTS[link.type].model_validate(link.payload) for link in links if link.step is not None
        }

    def done(self, step: str) -> Event | None:
        """The event that completed a step."""
        return self._done.get(step)

    def every(self, prefix: str) -> list[Event]:
        """The events of all steps whose names begin so, in the ledger's order."""
        return [event for step, event in self._done.items() if step.startswith(prefix)]

    async def record(self, step: str, event: EventT, payloads: Iterable[bytes | str] = ()) -> EventT:
        """Completes a step."""
        await self._recorder.append(event, run_id=self.run_id, step=step, payloads=payloads)
        self._done[step] = event
        return event

    async def step(self, step: str, compute: Callable[[], Awaitable[EventT | Kept[EventT]]]) -> EventT:
        """The step's event: from the ledger, or computed and recorded (with its payloads, if any)."""
        known = self.done(step)
        if known is not None:
            return cast("EventT", known)
        found = await compute()
        event, payloads = (found.event, found.payloads) if isinstance(found, Kept) else (found, ())
        return await self.record(step, event, payloads)

    def request_id(self, kind: str, content: object) -> str:
        """An id for a call to a peer: the same for the same run and content, whenever it is made."""
        return f"{kind}-{digest_of([self.run_id, kind, canonical_json(content).decode()]).sha256}"

    def progress(self, phase: str, round_: int, task_id: str) -> Callable[[Progress], None]:
        """Shows a peer's progress to those who watch this run. A peer that says the same again got no further."""
        last: tuple[str, int, float | None] | None = None

        def show(progress: Progress) -> None:
            nonlocal last
            now = (progress.phase, progress.done, progress.figures.get("step"))
            if now != last:
                last = now
                RUN_PROGRESS.set_to_current_time()
            event = RunProgress(phase=phase, round=round_, task_id=task_id, progress=progress)
            self._recorder.progress(self.run_id, event)

        return show
