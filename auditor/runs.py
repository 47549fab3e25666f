"""Accepts runs, carries them out one after another, and takes them up again after a restart.

A run is a task of its own: it survives its watcher and the call that started it. What ends it is the loop's last event,
an error that waiting did not cure, or an operator; a shutdown ends nothing, the run goes on at the next start. The
service stays up whatever happens to a run. The servicer calls this; it calls auditor/loop.py.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence

import structlog

from auditor import events as e
from auditor import metrics
from auditor.crew import Crew, load
from auditor.findings import NamedPayload, Run, RunState
from auditor.journal import Journal
from auditor.ledger.chain import Link
from auditor.loop import run_loop
from auditor.moves import uninterrupted
from auditor.requests import StartRun
from auditor.tasks import Order, Settings, Suite, Task
from auditor.watch import Seen, Watchers
from common.canonical import canonical_json, digest_bytes, digest_of
from common.errors import Conflict, SealError, TooMuch


class Runs:
    """The run manager: a queue, and one run at a time."""

    def __init__(
        self, crew: Crew, watchers: Watchers, *, defaults: Settings, suites: Sequence[Suite], max_queued: int
    ) -> None:
        self._crew = crew
        self._watchers = watchers
        self._defaults = defaults
        self._suites = suites
        self._max_queued = max_queued
        self._queue: deque[str] = deque()
        self._waiting = asyncio.Event()
        self._idle = asyncio.Event()
        self._accepting = asyncio.Lock()
        self._ending = asyncio.Lock()
        self._active: tuple[str, asyncio.Task[None]] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("runs")
        metrics.QUEUE.set_function(lambda: len(self._queue))
        metrics.RUN_ACTIVE.set_function(lambda: self._active is not None)

    @property
    def active_run_id(self) -> str:
        return self._active[0] if self._active else ""

    async def start(self) -> None:
        """Queues what an earlier process left unfinished, oldest first, and begins to work."""
        views = await self._crew.views.current()
        unfinished = sorted((run for run in views.runs.values() if not run.ended), key=lambda run: run.seq)
        self._queue.extend(run.run_id for run in unfinished)
        for run in unfinished:
            if run.state is RunState.RUNNING:
                await self._crew.recorder.append(e.RunResumed(from_seq=run.last_seq), run_id=run.run_id)
        self._waiting.set()
        self._worker = asyncio.create_task(self._work(), name="runs")

    async def idle(self) -> None:
        """Waits until nothing is queued or under way."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Stops working. What is under way is taken up at the next start."""
        for task in (self._worker, self._active[1] if self._active else None):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def order(self, request: StartRun, ordered_by: str) -> Run:
        """Queues a run. Raises InvalidRequest, TooMuch, or Conflict when the id was used for something else."""
        order = request.resolve(self._defaults, self._suites)
        await self._crew.graders.check(request)
        content = digest_of(request).sha256
        async with self._accepting:
            views = await self._crew.views.current()
            if (known := views.runs.get(order.run_id)) is not None:
                if known.content != content:
                    raise Conflict("this run_id was used for another run", ids={"run_id": order.run_id})
                return views.run_as_event(order.run_id)
            if len(self._queue) >= self._max_queued:
                raise TooMuch(f"{len(self._queue)} runs are waiting already")
            await uninterrupted(self._accept(order, content, ordered_by))
        return (await self._crew.views.current()).run_as_event(order.run_id)

    async def cancel(self, run_id: str, decided_by: str) -> Run:
        """Ends a run where it stands; what it promoted stays. A run that ended already stays as it is."""
        if not (await self._crew.views.current()).run(run_id).ended:
            if run_id in self._queue:
                self._queue.remove(run_id)
            await uninterrupted(self._end(run_id, decided_by))
        return (await self._crew.views.current()).run_as_event(run_id)

    async def _end(self, run_id: str, decided_by: str) -> None:
        """Stops a run and records it: one without the other would leave it running for those who watch."""
        async with self._ending:
            if self._active is not None and self._active[0] == run_id:
                task = self._active[1]
                task.cancel()
                await asyncio.wait([task])
            if not (await self._crew.views.current()).run(run_id).ended:
                await self._crew.recorder.append(e.RunCancelled(decided_by=decided_by), run_id=run_id, step="end")

    async def watch(self, run_id: str, after_seq: int) -> AsyncIterator[Seen]:
        """Every event of a run above `after_seq`, then those to come, until it ends."""
        (await self._crew.views.current()).run(run_id)
        recorder = self._crew.recorder

        async def ended() -> bool:
            return (await self._crew.views.current()).run(run_id).ended

        async def read(run_id: str, after: int) -> list[Link]:
            return await recorder.run(recorder.ledger.events, after=after, run_id=run_id)

        async for seen in self._watchers.follow(run_id, after_seq, read, ended):
            yield seen

    async def _accept(self, order: Order, content: str, ordered_by: str) -> None:
        """Records and queues a run: one without the other would leave it waiting until the next start."""
        await self._record(order, content, ordered_by)
        self._queue.append(order.run_id)
        self._idle.clear()
        self._waiting.set()

    async def _record(self, order: Order, content: str, ordered_by: str) -> None:
        """Tasks and suites become payloads, one each, so that one can be erased without the others."""
        tasks = [canonical_json(task) for task in order.tasks]
        suites = [canonical_json(suite) for suite in order.suites]
        event = e.RunRequested(
            settings=order.settings,
            content=content,
            ordered_by=ordered_by,
            tasks=tuple(
                NamedPayload(
                    name=task.task_id,
                    payload=digest_bytes(data).sha256,
                    document_id=task.context.document_id,
                    revision=task.context.revision,
                )
                for task, data in zip(order.tasks, tasks, strict=True)
            ),
            suites=tuple(
                NamedPayload(name=suite.suite_id, payload=digest_bytes(data).sha256)
                for suite, data in zip(order.suites, suites, strict=True)
            ),
        )
        await self._crew.recorder.append(event, run_id=order.run_id, step="request", payloads=(*tasks, *suites))

    async def _work(self) -> None:
        while True:
            await self._waiting.wait()
            while self._queue:
                run_id = self._queue.popleft()
                task = asyncio.create_task(self._carry_out(run_id), name=f"run {run_id}")
                self._active = (run_id, task)
                # A cancelled run must not cancel the worker, and a cancelled worker must end.
                await asyncio.wait([task])
                self._active = None
            self._waiting.clear()
            self._idle.set()

    async def _carry_out(self, run_id: str) -> None:
        """One run to its end; whatever goes wrong is recorded."""
        log = self._log.bind(run_id=run_id)
        log.info("run begins")
        try:
            order = await self._recorded(run_id)
            # Before the journal is read: what is missing may be a step of this run.
            await self._crew.moves.settle(self._crew.student)
            await run_loop(order, self._crew, await Journal.open(self._crew.recorder, run_id))
            log.info("run finished")
            return
        except SealError as error:
            failed = e.RunFailed(reason=error.reason, detail=error.message)
            log.warning("run failed", reason=error.reason, **error.ids)
        except Exception as error:
            failed = e.RunFailed(reason="INTERNAL", detail=f"a defect of the auditor: {type(error).__name__}")
            log.exception("run failed", reason="INTERNAL")
        await self._fail(run_id, failed)

    async def _fail(self, run_id: str, failed: e.RunFailed) -> None:
        try:
            await self._crew.recorder.append(failed, run_id=run_id, step="end")
        except SealError as error:
            # The ledger itself is gone: the next start finds the run unfinished.
            self._log.error("a run's failure could not be recorded", run_id=run_id, reason=error.reason)

    async def _recorded(self, run_id: str) -> Order:
        """The order as the ledger has it. Raises NotPossible(PAYLOAD_ERASED)."""
        view = (await self._crew.views.current()).run(run_id)
        recorder = self._crew.recorder
        tasks = [Task.model_validate(json.loads(await load(recorder, task.payload))) for task in view.tasks]
        suites = [Suite.model_validate(json.loads(await load(recorder, suite.payload))) for suite in view.suites]
        return Order(run_id=run_id, tasks=tuple(tasks), settings=view.settings, suites=tuple(suites))
