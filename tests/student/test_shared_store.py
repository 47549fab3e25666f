"""Two replicas on one folder: what one does the other sees, and what a killed one leaves behind harms nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from common.contract.seal.v1 import student_pb2
from common.errors import InvalidConfig, NotFound
from common.files import write_atomically
from common.lora.adapter_folder import AdapterFolders
from common.rpc.client import remote_errors
from student.aliases import Aliases
from student.config import StudentConfig
from student.requests import SetAliasRequest
from student.storage.folder import FolderStorage
from tests.student.bucket_fixtures import some_adapter
from tests.student.conftest import Client, Serve
from tests.support.examples import BY_HEART, prompts, tiny_edit

ROOT = Path(__file__).parents[2]
DAY = 86_400.0


@pytest.fixture
async def pair(config: StudentConfig, serve: Serve) -> AsyncIterator[tuple[Client, Client]]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(serve(config)), await stack.enter_async_context(serve(config))


async def test_a_move_of_live_holds_at_every_replica_from_the_next_answer_on(pair: tuple[Client, Client]) -> None:
    one, two = pair
    version = (await one.trained(tiny_edit(BY_HEART))).version
    _, before = await two.answer(prompts(1), "live", request_id="before")
    await one.set_alias("live", version, 0)
    _, after = await two.answer(prompts(1), "live", request_id="after")
    assert [(answer.version, answer.alias_generation) for answer in (*before, *after)] == [("base", 0), (version, 1)]


async def test_what_one_replica_discards_no_other_answers_with(pair: tuple[Client, Client]) -> None:
    one, two = pair
    version = (await one.trained()).version
    await two.answer(prompts(1), version, request_id="resident")
    await one.stub.Discard(student_pb2.DiscardRequest(version=version), timeout=10)
    with pytest.raises(NotFound), remote_errors():
        await two.stub.VerifyVersion(student_pb2.VerifyVersionRequest(version=version), timeout=10)
    with pytest.raises(NotFound), remote_errors():
        await two.answer(prompts(1), version, request_id="again")


HOLDING = """
import sys, time
from pathlib import Path
from student.storage.folder import FolderObjects

def wait(data):
    print("held", flush=True)
    time.sleep(600)

FolderObjects(Path(sys.argv[1])).update("aliases/live.json", wait)
"""


def test_a_replica_killed_while_it_moves_an_alias_blocks_no_other(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    moved = Aliases(storage.objects).move(SetAliasRequest(request_id="r", name="live", version="base"))
    assert moved.generation == 1


def test_a_file_system_without_locks_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FolderStorage(tmp_path)
    storage.check()

    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(InvalidConfig, match="without locks"):
        storage.check()


def test_only_what_is_half_done_and_old_is_swept_away(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    digest = storage.adapters.put(some_adapter(), base_model="tiny").sha256
    write_atomically(tmp_path / "edits" / "kept.json", b"{}")
    Aliases(storage.objects).move(SetAliasRequest(request_id="r", name="live", version=digest))
    whole = {path for path in tmp_path.rglob("*") if path.is_file()}
    old, young = tmp_path / "adapters" / ".half.old", tmp_path / "adapters" / ".half.young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"half")
    half_file = tmp_path / "edits" / ".kept.json.abc"
    half_file.write_bytes(b"half")
    for path in (old / "adapter_model.safetensors", old, half_file, *whole):
        os.utime(path, (time.time() - 2 * DAY,) * 2)
    assert storage.sweep(DAY) == 2
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*whole, young / "adapter_model.safetensors"}
    assert AdapterFolders(tmp_path / "adapters").names() == [digest]
