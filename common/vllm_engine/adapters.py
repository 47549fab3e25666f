"""The adapters that a vLLM engine holds: loaded under immutable names, bounded in number, removed and seen to be gone.

vLLM identifies an adapter by name and by number, does not notice when a file behind them changes, and reads an adapter
again from its path when a request names one that has left. So: the name is the adapter's digest, a number is never used
again, what is loaded is asked of the engine and not remembered, and no adapter leaves while a completion is drawn from
it, nor by vLLM's own choice, for here is never more than vLLM has room for. Used by VllmEngine, on one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common.errors import NotFound, NotPossible


@dataclass(frozen=True)
class Loaded:
    """An adapter as the engine knows it. `digest` is its name and the salt of its cache blocks."""

    digest: str
    number: int
    folder: Path


class AdapterEngine(Protocol):
    """The engine's side. All raise Unavailable when it has died."""

    async def add_adapter(self, adapter: Loaded) -> None:
        """Raises whatever vLLM raises for an adapter that it does not take."""

    async def remove_adapter(self, number: int) -> None: ...

    async def list_adapters(self) -> frozenset[int]:
        """Numbers of the adapters that the engine itself says it holds."""


class Adapters:
    """At most `limit` adapters of one engine; the least recently used one that is idle leaves first."""

    def __init__(self, engine: AdapterEngine, limit: int) -> None:
        self._engine = engine
        self._limit = limit
        self._known: OrderedDict[str, Loaded] = OrderedDict()
        self._uses: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._changing = asyncio.Lock()
        self._freed = asyncio.Event()

    async def loaded(self) -> frozenset[str]:
        """Digests of the adapters that the engine lists."""
        held = await self._engine.list_adapters()
        return frozenset(digest for digest, adapter in self._known.items() if adapter.number in held)

    async def load(self, digest: str, folder: Path) -> bool:
        """Makes the adapter in `folder` (PEFT format, verified by the caller) usable; whether it was not before.

        Waits while every place is taken by an adapter in use. Raises NotPossible (ADAPTER_NOT_LOADED, or
        ADAPTER_NOT_REMOVED for the one that had to make room) and Unavailable.
        """
        async with self._changing:
            held = await self._engine.list_adapters()
            loaded = frozenset(name for name, adapter in self._known.items() if adapter.number in held)
            for gone in self._known.keys() - loaded:
                del self._known[gone]
            # A caller that was cancelled while the engine loaded or removed one has left it there unknown.
            for stray in held - {adapter.number for adapter in self._known.values()}:
                await self._engine.remove_adapter(stray)
            if digest in loaded:
                self._known.move_to_end(digest)
                return False
            while len(self._known) >= self._limit:
                idle = next((name for name in self._known if not self._uses[name]), None)
                if idle is None:
                    await self._next_free()
                else:
                    await self._remove(idle)
            await self._add(Loaded(digest, next(self._numbers), folder))
            return True

    async def unload(self, digest: str) -> None:
        """Frees an adapter once nothing is drawn from it. Raises NotFound, NotPossible (ADAPTER_NOT_REMOVED)."""
        async with self._changing:
            if digest not in await self.loaded():
                raise NotFound(f"adapter {digest} is not loaded", ids={"adapter": digest})
            while self._uses[digest]:
                await self._next_free()
            await self._remove(digest)

    @contextmanager
    def using(self, digest: str) -> Iterator[Loaded]:
        """Within, the adapter stays. Raises NotPossible when it is not loaded."""
        adapter = self._known.get(digest)
        if adapter is None:
            raise NotPossible(f"adapter {digest} is not loaded", reason="ADAPTER_NOT_LOADED", ids={"adapter": digest})
        self._known.move_to_end(digest)
        self._uses[digest] += 1
        try:
            yield adapter
        finally:
            self._uses[digest] -= 1
            if not self._uses[digest]:
                del self._uses[digest]
            self._freed.set()

    async def _add(self, adapter: Loaded) -> None:
        ids = {"adapter": adapter.digest}
        try:
            await self._engine.add_adapter(adapter)
        except NotPossible:
            await self._clear(adapter.number)
            raise
        if adapter.number not in await self._engine.list_adapters():
            raise NotPossible(
                f"vLLM does not list adapter {adapter.digest} after loading it", reason="ADAPTER_NOT_LOADED", ids=ids
            )
        self._known[adapter.digest] = adapter

    async def _remove(self, digest: str) -> None:
        # Nobody may begin to use it while it leaves: vLLM would read it again from its path.
        adapter = self._known.pop(digest)
        await self._engine.remove_adapter(adapter.number)
        if adapter.number in await self._engine.list_adapters():
            self._known[digest] = adapter
            raise NotPossible(
                f"vLLM still lists adapter {digest} after removing it",
                reason="ADAPTER_NOT_REMOVED",
                ids={"adapter": digest},
            )

    async def _clear(self, number: int) -> None:
        """Takes away what a load that failed half way may have left."""
        if number in await self._engine.list_adapters():
            await self._engine.remove_adapter(number)

    async def _next_free(self) -> None:
        self._freed.clear()
        await self._freed.wait()
