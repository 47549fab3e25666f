"""Several edits written in one batch by a generator that batches no more than one call's prompts.

On a CPU a batch of eight completions takes little longer than one: the weights are read once for all of them. The
transformers backend writes each call by itself; here the calls of one block of edits wait for each other and go on
together. What a batch says depends on who is in it, so it is kept whole: writers that an interruption left without
theirs find it. benchmarks/method/own_edits.py is the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from common.canonical import canonical_json, digest_of
from common.files import write_atomically
from common.types import Domain, Software
from teacher.generator import Completion, Draw, Generator, PromptTooLong

Batch = asyncio.Future[list[Completion]]
Turn = asyncio.Future[tuple[Batch, int]]  # the batch that a call is part of, and its first place there


class Kept(Domain):
    """A completion on disk."""

    text: str
    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]


class Together:
    """A generator around another one. A block is begun with the number of its writers; each asks once, and leaves.

    folder: for the completions of one model; without it nothing is kept.
    """

    def __init__(self, inner: Generator, folder: Path | None = None) -> None:
        self._inner = inner
        self._folder = folder
        self._writers = 0
        self._waiting: list[tuple[Sequence[Draw], str, Turn]] = []

    def begin(self, writers: int) -> None:
        """The next calls wait until so many have come."""
        self._writers = writers

    def leave(self) -> None:
        """One writer less: it has what it asked for, or will not ask."""
        self._writers -= 1
        self._go()

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting.append((draws, version, turn))
        self._go()
        batch, first = await turn
        try:
            written = await batch
        except PromptTooLong:  # somebody's prompt; alone, the others can still be written
            return await self._inner.generate(draws, version)
        return written[first : first + len(draws)]

    def _go(self) -> None:
        """Hands the calls over, a batch for each version, once nobody is left to wait for."""
        if len(self._waiting) < self._writers:
            return
        calls, self._waiting = self._waiting, []
        for version in dict.fromkeys(version for _, version, _ in calls):
            alike = [(draws, turn) for draws, asked, turn in calls if asked == version]
            everything = [draw for draws, _ in alike for draw in draws]
            batch = asyncio.ensure_future(self._written(everything, version))
            first = 0
            for draws, turn in alike:
                turn.set_result((batch, first))
                first += len(draws)

    async def _written(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        """Nobody has theirs before all are kept: whoever comes back finds theirs, or all come back."""
        if self._folder is None:
            return await self._inner.generate(draws, version)
        files = [self._folder / f"{_name(draw, version)}.json" for draw in draws]
        if not all(file.exists() for file in files):
            written = await self._inner.generate(draws, version)
            for file, said in zip(files, written, strict=True):
                write_atomically(file, canonical_json(Kept(**vars(said))))
        return [Completion(**dict(Kept.model_validate_json(file.read_bytes()))) for file in files]

    async def start(self) -> None:
        await self._inner.start()

    async def load(self, version: str, folder: Path) -> None:
        await self._inner.load(version, folder)

    async def unload(self, version: str) -> None:
        await self._inner.unload(version)

    async def loaded(self) -> frozenset[str]:
        return await self._inner.loaded()

    def software(self) -> Software:
        return self._inner.software()

    async def close(self) -> None:
        await self._inner.close()


def _name(draw: Draw, version: str) -> str:
    return digest_of([version, list(draw.prompt_ids), draw.sampling.model_dump(mode="json")]).sha256[:32]
