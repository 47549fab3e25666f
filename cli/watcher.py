"""Follows a run's events through broken connections: none missing, none doubled.

Recorded events have increasing numbers. After a break the stream is opened again behind the last number seen, and
whatever comes again all the same is dropped. Progress (number 0) is passed on as it comes. Ends with the event that
ends the run, or at once where that one lies before the number asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import grpc

from cli.client import Auditor, NoAnswer, failure_of
from common import errors
from common.contract.seal.v1 import auditor_pb2 as pb
from common.rpc.status import from_rpc_error

STREAM_SECONDS = 600.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
ENDINGS = frozenset({"run_finished", "run_failed", "run_cancelled"})
OVER = frozenset({pb.RUN_STATE_FINISHED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED})
PASSING = (errors.Unavailable, errors.Expired, errors.Cancelled)


async def watch(
    auditor: Auditor,
    run_id: str,
    *,
    after_seq: int = 0,
    patience_seconds: float = PATIENCE_SECONDS,
    broken: Callable[[], None] | None = None,
) -> AsyncIterator[pb.RunEvent]:
    """Every event of the run after `after_seq`. Calls `broken` at each break.

    Raises NoAnswer when nobody has answered for `patience_seconds` (at once if nobody ever did), and Failure for what
    another try cannot mend.
    """
    last = after_seq
    patience = _Patience(auditor.target, patience_seconds)
    while True:
        try:
            async with aclosing(_stream(auditor, run_id, last)) as events:
                async for event in events:
                    patience.heard()
                    if 0 < event.seq <= last:
                        continue
                    last = max(last, event.seq)
                    yield event
                    if event.WhichOneof("event") in ENDINGS:
                        return
            if await _is_over(auditor, run_id, last):
                return
            patience.ended()
        except grpc.RpcError as error:
            if patience.broke(error):
                continue
        if broken is not None:
            broken()
        await asyncio.sleep(patience.pause())


class _Patience:
    """How long a watcher goes on trying, and how long it waits between tries."""

    def __init__(self, target: str, limit_seconds: float) -> None:
        self._target = target
        self._limit = limit_seconds
        self._answered = False
        self._heard = time.monotonic()
        self._pause = FIRST_PAUSE_SECONDS

    def heard(self) -> None:
        self._answered = True
        self._heard = time.monotonic()
        self._pause = FIRST_PAUSE_SECONDS

    def ended(self) -> None:
        """The stream ended without the run's end. Raises NoAnswer when that has gone on for too long."""
        self._answered = True
        if self._is_used_up():
            raise NoAnswer(self._target)

    def broke(self, error: grpc.RpcError) -> bool:
        """Whether it was only our own deadline: a stream that is opened again, not a broken one.

        Raises Failure for what another try cannot mend, and when time is up.
        """
        remote = from_rpc_error(error)
        if isinstance(remote, errors.Expired):
            self.heard()
            return True
        if not isinstance(remote, PASSING) or not self._answered or self._is_used_up():
            raise failure_of(error, self._target) from error
        return False

    def pause(self) -> float:
        """Seconds to wait before the next try; longer each time that nothing was heard."""
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        return pause

    def _is_used_up(self) -> bool:
        return time.monotonic() - self._heard > self._limit


async def _stream(auditor: Auditor, run_id: str, after_seq: int) -> AsyncGenerator[pb.RunEvent, None]:
    """One stream until it ends or breaks (RpcError)."""
    stream = auditor.stub.WatchRun(pb.WatchRunRequest(run_id=run_id, after_seq=after_seq), timeout=STREAM_SECONDS)
    try:
        async for response in stream:
            yield response.event
    finally:
        stream.cancel()


async def _is_over(auditor: Auditor, run_id: str, last: int) -> bool:
    """Whether a run that was asked for behind its last event has ended; a broken connection says nothing."""
    try:
        run = await auditor.run(run_id)
    except NoAnswer:
        return False
    return run.state in OVER and run.last_seq <= last
