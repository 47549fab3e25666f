"""Files that survive: whole or not at all, and never another content under the same name."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path

import pytest
from filelock import FileLock

from common.errors import Corrupt, NotFound
from common.files import ContentStore, sha256_file, write_atomically
from common.phase import HeavyPhase


def test_content_is_found_under_its_digest_and_damage_is_noticed(tmp_path: Path) -> None:
    store = ContentStore(tmp_path, ".json")
    digest = store.put(b"edit")
    assert store.get(digest.sha256) == b"edit"
    assert store.names() == [digest.sha256]
    assert sha256_file(store.path(digest.sha256)) == digest
    store.path(digest.sha256).write_bytes(b"edIt")
    with pytest.raises(Corrupt, match=digest.sha256):
        store.get(digest.sha256)
    with pytest.raises(NotFound, match="0" * 64):
        store.get("0" * 64)


def test_failed_write_leaves_the_old_file_and_no_scraps(tmp_path: Path) -> None:
    path = tmp_path / "alias.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["alias.json"]


def _hold_until(path: str, held: multiprocessing.synchronize.Event, release: multiprocessing.synchronize.Event) -> None:
    with FileLock(path):
        held.set()
        release.wait(20)


async def test_heavy_phases_of_two_processes_take_turns(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    path = tmp_path / "heavy.lock"
    other = context.Process(target=_hold_until, args=(str(path), held, release))
    other.start()
    assert await asyncio.to_thread(held.wait, 20)
    entered = asyncio.Event()

    async def enter() -> None:
        async with HeavyPhase(path).hold("training"):
            entered.set()

    task = asyncio.create_task(enter())
    await asyncio.sleep(0.3)
    assert not entered.is_set()
    release.set()
    await asyncio.wait_for(task, 20)
    other.join(20)


async def test_holder_that_is_cancelled_frees_the_machine(tmp_path: Path) -> None:
    phase = HeavyPhase(tmp_path / "heavy.lock")

    async def hold() -> None:
        async with phase.hold("training"):
            await asyncio.sleep(30)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(20), phase.hold("answering"):
        pass
