"""Calls of one block are written in one batch, and none waits for a writer that will not ask."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.method.together import Together
from common.errors import NotPossible
from common.types import Sampling, Software
from teacher.generator import Completion, Draw, PromptTooLong

LONGEST = 5


@dataclass
class Counts:
    """Says how long each prompt was; refuses a whole call for one that is too long, as the backends do."""

    calls: list[tuple[str, list[int]]] = field(default_factory=list)

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        await asyncio.sleep(0)
        lengths = [len(draw.prompt_ids) for draw in draws]
        if version == "missing":
            raise NotPossible("policy missing is not loaded", reason="POLICY_NOT_LOADED")
        if max(lengths) > LONGEST:
            raise PromptTooLong(max(lengths), 1, LONGEST)
        self.calls.append((version, lengths))
        return [Completion(str(length), (1,), "stop") for length in lengths]

    async def start(self) -> None: ...
    async def load(self, version: str, folder: Path) -> None: ...
    async def unload(self, version: str) -> None: ...
    async def close(self) -> None: ...
    async def loaded(self) -> frozenset[str]:
        return frozenset()

    def software(self) -> Software:
        return Software()


def draws(*lengths: int) -> list[Draw]:
    return [Draw((7,) * length, Sampling(max_new_tokens=1)) for length in lengths]


async def write(together: Together, lengths: Sequence[int], version: str = "base") -> list[str]:
    """A writer of a block; without lengths it asks nothing."""
    try:
        return [said.text for said in await together.generate(draws(*lengths), version)] if lengths else []
    finally:
        together.leave()


async def test_a_block_is_one_call_and_everybody_gets_their_own() -> None:
    inner = Counts()
    together = Together(inner)
    for _ in range(2):
        together.begin(3)
        async with asyncio.timeout(10):
            found = await asyncio.gather(write(together, [1, 2]), write(together, [3]), write(together, [4, 5]))
        assert [*found] == [["1", "2"], ["3"], ["4", "5"]]
    assert inner.calls == [("base", [1, 2, 3, 4, 5])] * 2


async def test_nobody_waits_for_a_writer_that_asks_nothing() -> None:
    together = Together(Counts())
    together.begin(3)
    async with asyncio.timeout(10):
        found = await asyncio.gather(write(together, [1]), write(together, []), write(together, [2]))
    assert [*found] == [["1"], [], ["2"]]


async def test_versions_are_written_apart_and_fail_apart() -> None:
    inner = Counts()
    together = Together(inner)
    together.begin(3)
    async with asyncio.timeout(10):
        found = await asyncio.gather(
            write(together, [1]),
            write(together, [2], "missing"),
            write(together, [3], "policy"),
            return_exceptions=True,
        )
    assert [found[0], found[2]] == [["1"], ["3"]]
    assert isinstance(found[1], NotPossible)
    assert inner.calls == [("base", [1]), ("policy", [3])]


async def test_a_prompt_that_is_too_long_fails_alone() -> None:
    together = Together(Counts())
    together.begin(2)
    async with asyncio.timeout(10):
        short, long = await asyncio.gather(write(together, [1]), write(together, [9]), return_exceptions=True)
    assert short == ["1"]
    assert isinstance(long, PromptTooLong)


async def test_an_error_of_the_engine_reaches_every_writer() -> None:
    together = Together(Counts())
    together.begin(2)
    async with asyncio.timeout(10):
        failed = await asyncio.gather(
            write(together, [1], "missing"), write(together, [2], "missing"), return_exceptions=True
        )
    assert [type(failure) for failure in failed] == [NotPossible] * 2


async def test_writers_that_an_interruption_left_without_theirs_find_what_their_batch_said(tmp_path: Path) -> None:
    first, second = Counts(), Counts()
    together = Together(first, tmp_path)
    together.begin(2)
    async with asyncio.timeout(10):
        await asyncio.gather(write(together, [1, 2]), write(together, [3]))
    together = Together(second, tmp_path)
    together.begin(1)
    assert await write(together, [3]) == ["3"]
    assert second.calls == []
    together.begin(2)
    async with asyncio.timeout(10):
        await asyncio.gather(write(together, [3]), write(together, [4]))
    assert second.calls == [("base", [3, 4])], "a batch of which one is missing is written whole"
    together.begin(1)
    assert await write(together, [3], "policy") == ["3"]
    assert second.calls[1:] == [("policy", [3])]
