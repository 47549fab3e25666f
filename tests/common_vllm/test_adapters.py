"""Faults that a real engine cannot be made to show, by a scripted one; tests/student has the real engine's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.errors import NotFound, NotPossible
from common.vllm_engine.adapters import Adapters, Loaded

A, B, C = "a" * 64, "b" * 64, "c" * 64
FOLDER = Path("/adapters")


class ScriptedEngine:
    """Holds what it is told to, unless it is to fail."""

    def __init__(self) -> None:
        self.held: dict[int, str] = {}
        self.numbers: list[int] = []
        self.takes = self.gives_back = True
        self.refuses = False

    async def add_adapter(self, adapter: Loaded) -> None:
        self.numbers.append(adapter.number)
        if self.takes:
            self.held[adapter.number] = adapter.digest
        await asyncio.sleep(0)
        if self.refuses:
            raise NotPossible("broken")

    async def remove_adapter(self, number: int) -> None:
        await asyncio.sleep(0)
        if self.gives_back:
            self.held.pop(number, None)

    async def list_adapters(self) -> frozenset[int]:
        return frozenset(self.held)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def adapters(engine: ScriptedEngine) -> Adapters:
    return Adapters(engine, limit=2)


async def test_an_adapter_that_is_not_listed_after_loading_does_not_count(
    adapters: Adapters, engine: ScriptedEngine
) -> None:
    engine.takes = False
    with pytest.raises(NotPossible, match=A) as refused:
        await adapters.load(A, FOLDER)
    assert refused.value.reason == "ADAPTER_NOT_LOADED"
    with pytest.raises(NotPossible), adapters.using(A):
        pass
    engine.takes = True
    assert await adapters.load(A, FOLDER)
    assert engine.numbers == [1, 2]


async def test_an_adapter_that_stays_listed_after_removal_is_an_error_and_stays_known(
    adapters: Adapters, engine: ScriptedEngine
) -> None:
    await adapters.load(A, FOLDER)
    engine.gives_back = False
    with pytest.raises(NotPossible, match=A) as refused:
        await adapters.unload(A)
    assert refused.value.reason == "ADAPTER_NOT_REMOVED"
    assert await adapters.loaded() == {A}
    engine.gives_back = True
    await adapters.unload(A)
    assert not engine.held
    with pytest.raises(NotFound):
        await adapters.unload(A)


async def test_the_least_recently_used_idle_one_makes_room_and_never_one_in_use(
    adapters: Adapters, engine: ScriptedEngine
) -> None:
    await adapters.load(A, FOLDER)
    await adapters.load(B, FOLDER)
    with adapters.using(A):
        await adapters.load(C, FOLDER)
        assert set(engine.held.values()) == {A, C}
        with adapters.using(C):
            waiting = asyncio.create_task(adapters.load(B, FOLDER))
            await asyncio.sleep(0.01)
            assert set(engine.held.values()) == {A, C}
        await waiting
        assert set(engine.held.values()) == {A, B}
    assert await adapters.load(A, FOLDER) is False
    assert engine.numbers == sorted(set(engine.numbers))


async def test_removal_waits_for_who_uses_it_and_lets_nobody_begin_meanwhile(
    adapters: Adapters, engine: ScriptedEngine
) -> None:
    await adapters.load(A, FOLDER)
    with adapters.using(A):
        leaving = asyncio.create_task(adapters.unload(A))
        await asyncio.sleep(0.01)
        assert set(engine.held.values()) == {A}
    await asyncio.sleep(0)
    with pytest.raises(NotPossible), adapters.using(A):
        pass
    await leaving
    assert not engine.held


async def test_one_that_the_engine_has_lost_is_loaded_again_under_a_new_number(
    adapters: Adapters, engine: ScriptedEngine
) -> None:
    await adapters.load(A, FOLDER)
    engine.held.clear()
    assert await adapters.loaded() == frozenset()
    assert await adapters.load(A, FOLDER)
    assert engine.held == {2: A}


async def test_what_a_refused_load_leaves_is_taken_away(adapters: Adapters, engine: ScriptedEngine) -> None:
    engine.refuses = True
    with pytest.raises(NotPossible, match="broken"):
        await adapters.load(A, FOLDER)
    assert not engine.held


async def test_what_a_cancelled_caller_leaves_is_taken_away_by_the_next(
    adapters: Adapters, engine: ScriptedEngine
) -> None:
    loading = asyncio.create_task(adapters.load(A, FOLDER))
    for _ in range(100):
        if engine.held:
            break
        await asyncio.sleep(0)
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    assert loading.cancelled()
    assert engine.held == {1: A}
    assert await adapters.load(B, FOLDER)
    assert engine.held == {2: B}
