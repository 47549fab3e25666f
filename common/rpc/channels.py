"""A channel whose certificate may change: calls that begin go to a channel with the newest, calls under way are left.

What always holds: no call fails because files were replaced. The old channel is closed when its last call has ended.
Made by common/rpc/client.py; stubs take it for an ordinary channel.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, Self

import grpc
from grpc import aio

from common.tls.material import Material
from common.tls.reloading import Reloader

# A call that nobody waits for any more is dropped without a word: how often to look for that.
LOOK_SECONDS = 5.0


class ReloadingChannel(aio.Channel):
    """`dial` makes a channel with a certificate. Not for threads: one event loop uses it."""

    def __init__(self, reloader: Reloader, dial: Callable[[Material], aio.Channel]) -> None:
        self._reloader = reloader
        self._dial = dial
        self._now = _Dialled(reloader.current, dial)
        self._retiring: dict[asyncio.Task[None], _Dialled] = {}
        self._closed = False

    def newest(self) -> _Dialled:
        """The channel for a call that begins."""
        material = self._reloader.current
        if material.fingerprint != self._now.fingerprint and not self._closed:
            task = asyncio.get_running_loop().create_task(self._now.retire())
            self._retiring[task] = self._now
            task.add_done_callback(lambda done: self._retiring.pop(done, None))
            self._now = _Dialled(material, self._dial)
        return self._now

    def unary_unary(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return _Method(self, "unary_unary", method, arguments, keywords)

    def unary_stream(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return _Method(self, "unary_stream", method, arguments, keywords)

    def stream_unary(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return _Method(self, "stream_unary", method, arguments, keywords)

    def stream_stream(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return _Method(self, "stream_stream", method, arguments, keywords)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        # A task that was cancelled before its first step has closed nothing.
        await asyncio.gather(*(dialled.channel.close(grace) for dialled in (*retiring.values(), self._now)))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.newest().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.newest().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.newest().channel.channel_ready()


class _Dialled:
    """One channel, and the calls that are under way on it."""

    def __init__(self, material: Material, dial: Callable[[Material], aio.Channel]) -> None:
        self.fingerprint = material.fingerprint
        self.channel = dial(material)
        self._methods: dict[str, Any] = {}
        self._calls: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ended = asyncio.Event()

    def begin(self, kind: str, method: str, made: tuple[Any, Any], called: tuple[Any, Any]) -> Any:
        """A call of `method`, which keeps the channel open until it has ended."""
        if method not in self._methods:
            self._methods[method] = getattr(self.channel, kind)(method, *made[0], **made[1])
        call = self._methods[method](*called[0], **called[1])
        self._calls.add(call)
        call.add_done_callback(self._end)
        return call

    def _end(self, call: Any) -> None:
        self._calls.discard(call)
        self._ended.set()

    async def retire(self) -> None:
        """Closes the channel behind its last call."""
        while len(self._calls):
            self._ended.clear()
            try:
                await asyncio.wait_for(self._ended.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
        await self.channel.close()


class _Method:
    """What a stub calls."""

    def __init__(self, channel: ReloadingChannel, kind: str, method: str, arguments: Any, keywords: Any) -> None:
        self._channel = channel
        self._kind = kind
        self._method = method
        self._made = (arguments, keywords)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._channel.newest().begin(self._kind, self._method, self._made, (arguments, keywords))
