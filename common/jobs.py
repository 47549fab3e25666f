"""Long work that outlives the stream that asked for it.

A call with a request id starts work once. A later call with the same id and content attaches to it: it gets every kept
event from the first on and follows the rest, so a broken stream is simply opened again. The same id with other content
is a Conflict. Work that failed may be asked for again. Servicers call this; domain modules publish into it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from common.errors import Cancelled, Conflict
from common.types import Digest

EventT = TypeVar("EventT")
EventT_contra = TypeVar("EventT_contra", contravariant=True)


class Publish(Protocol[EventT_contra]):
    """Hands an event to all followers; events with keep=False are not replayed to late ones."""

    def __call__(self, event: EventT_contra, *, keep: bool = True) -> None: ...


@dataclass
class _Job(Generic[EventT]):
    content: Digest
    kept: list[EventT] = field(default_factory=list)
    followers: set[asyncio.Queue[EventT | None]] = field(default_factory=set)
    task: asyncio.Task[None] | None = None

    def publish(self, event: EventT, *, keep: bool = True) -> None:
        if keep:
            self.kept.append(event)
        for follower in self.followers:
            follower.put_nowait(event)

    async def carry_out(self, work: Callable[[Publish[EventT]], Awaitable[None]]) -> None:
        try:
            await work(self.publish)
        finally:
            for follower in self.followers:
                follower.put_nowait(None)


class Jobs(Generic[EventT]):
    """Jobs of one RPC by request id. At most `keep_finished` ended ones are remembered."""

    def __init__(self, keep_finished: int = 64) -> None:
        self._jobs: OrderedDict[str, _Job[EventT]] = OrderedDict()
        self._keep_finished = keep_finished

    async def attach(
        self,
        request_id: str,
        content: Digest,
        work: Callable[[Publish[EventT]], Awaitable[None]],
    ) -> AsyncIterator[EventT]:
        """Starts `work`, or follows the job of that id. Raises Conflict, or what the work raised."""
        job = self._find_or_start(request_id, content, work)
        queue: asyncio.Queue[EventT | None] = asyncio.Queue()
        replay = list(job.kept)
        job.followers.add(queue)
        try:
            for event in replay:
                yield event
            assert job.task is not None
            while not (job.task.done() and queue.empty()):
                following = await queue.get()
                if following is None:
                    break
                yield following
        finally:
            job.followers.discard(queue)
        try:
            await asyncio.shield(job.task)
        except asyncio.CancelledError:
            if job.task.cancelled():
                raise Cancelled("the service is stopping; ask again with the same request id") from None
            raise

    def _find_or_start(
        self, request_id: str, content: Digest, work: Callable[[Publish[EventT]], Awaitable[None]]
    ) -> _Job[EventT]:
        job = self._jobs.get(request_id)
        if job is not None and job.content.sha256 != content.sha256:
            raise Conflict("this request id was used with other content", ids={"request_id": request_id})
        if job is None or _failed(job):
            job = _Job(content)
            job.task = asyncio.get_running_loop().create_task(job.carry_out(work), name=f"job {request_id}")
            # A failure reaches the followers; one that nobody follows any more must not warn at exit.
            job.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._jobs[request_id] = job
            self._forget_oldest()
        return job

    def _forget_oldest(self) -> None:
        finished = [name for name, job in self._jobs.items() if job.task is not None and job.task.done()]
        for name in finished[: max(0, len(finished) - self._keep_finished)]:
            del self._jobs[name]

    async def close(self) -> None:
        """Cancels what is under way and waits for it."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None and not job.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(job: _Job[EventT]) -> bool:
    return job.task is not None and job.task.done() and (job.task.cancelled() or job.task.exception() is not None)
