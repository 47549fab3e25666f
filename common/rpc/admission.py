"""Turns away what is over the limits, before any work is done for it, and says when to come again.

What always holds: a caller's calls under way and the rate of new ones are bounded by themselves, so one caller cannot
take what the others need; streams count until their end. Health checks are exempt: a busy service is not a dead one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from common.boundary.identities import Identity
from common.errors import Overloaded
from common.rpc.caller import caller
from common.rpc.limits import CallLimits
from common.rpc.wrapping import Context, unseen, wrapped

# Nobody can know when a call under way will end: long enough not to be asked all the time, short enough to go on soon.
BUSY_RETRY_SECONDS = 1.0
KNOWN_CALLERS = 10_000


@dataclass
class _Bucket:
    """Tokens of one caller: each call that begins takes one, and they come back at a steady rate."""

    tokens: float
    filled: float

    def take(self, limits: CallLimits, now: float) -> float:
        """0, or seconds until there is a token."""
        self.tokens = min(limits.burst, self.tokens + (now - self.filled) * limits.calls_per_second)
        self.filled = now
        if self.tokens < 1:
            return (1 - self.tokens) / limits.calls_per_second
        self.tokens -= 1
        return 0.0


class Admission:
    """Counts calls. One event loop uses it."""

    def __init__(self, limits: CallLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._under_way: Counter[Identity] = Counter()
        self._buckets: dict[Identity, _Bucket] = {}

    def enter(self, identity: Identity) -> None:
        """Raises Overloaded; else `leave` must follow."""
        limits = self._limits
        if self._under_way[identity] >= limits.concurrent_calls_per_caller:
            self._refuse(identity, f"{identity} has {limits.concurrent_calls_per_caller} calls under way")
        if self._under_way.total() >= limits.concurrent_calls:
            self._refuse(identity, f"{limits.concurrent_calls} calls are under way")
        wait = self._bucket(identity).take(limits, self._clock())
        if wait:
            self._refuse(identity, f"{identity} began more than {limits.calls_per_second:g} calls a second", wait)
        self._under_way[identity] += 1

    def leave(self, identity: Identity) -> None:
        self._under_way[identity] -= 1
        if not self._under_way[identity]:
            del self._under_way[identity]

    def _bucket(self, identity: Identity) -> _Bucket:
        if identity not in self._buckets and len(self._buckets) >= KNOWN_CALLERS:
            self._buckets.clear()  # everybody begins with a full bucket again, which is harmless
        return self._buckets.setdefault(identity, _Bucket(self._limits.burst, self._clock()))

    def _refuse(self, identity: Identity, why: str, seconds: float = BUSY_RETRY_SECONDS) -> None:
        raise Overloaded(f"{why}, which is the limit here", retry_seconds=seconds, ids={"identity": str(identity)})


class AdmissionInterceptor(grpc.aio.ServerInterceptor):
    """Stands behind the authorization interceptor, which says who calls."""

    def __init__(self, limits: CallLimits) -> None:
        self._admission = Admission(limits)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or str(handler_call_details.method).startswith("/grpc."):
            return handler
        return wrapped(handler, self._counted)

    @asynccontextmanager
    async def _counted(self, _: Any, __: Context) -> AsyncIterator[Callable[[Any], None]]:
        identity = caller()
        self._admission.enter(identity)
        try:
            yield unseen
        finally:
            self._admission.leave(identity)
