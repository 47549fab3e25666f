"""The store in a bucket, through a real S3 API: whole or not at all, verified, and one winner of every race."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from pydantic import ValidationError

from common.canonical import digest_bytes
from common.errors import Corrupt, InvalidConfig, NotFound, StaleGeneration, Unavailable
from common.lora.adapter_folder import AdapterFolders
from common.lora.adapter_format import Adapter
from common.versions import Alias
from student.aliases import Aliases
from student.config import StudentConfig
from student.requests import SetAliasRequest
from student.storage.bucket import BucketStorage
from student.storage.config import BucketConfig
from student.storage.opening import open_storage
from student.store import VersionStore
from tests.student.bucket_fixtures import some_adapter
from tests.student.conftest import Serve, train_request
from tests.support.examples import BY_HEART, prompts, tiny_edit

ROOT = Path(__file__).parents[2]
Open = Callable[[str], BucketStorage]
WEIGHTS = "adapter_model.safetensors"


async def test_what_one_replica_trains_another_recognises_and_answers_with(
    config: StudentConfig, serve: Serve, url: str, settings: Callable[[str], BucketConfig]
) -> None:
    def on(name: str) -> StudentConfig:
        return StudentConfig.model_validate({**config.model_dump(), "store": url, "bucket": settings(name)})

    edit = tiny_edit(BY_HEART)
    async with serve(on("one")) as one, serve(on("two")) as two:
        version = await one.trained(edit)
        (again,) = await two.train(train_request(edit))
        assert again.trained.reused
        assert again.trained.version == version
        moved = await two.set_alias("live", version.version, 0)
        here, there = [await client.answer(prompts(1), "live") for client in (one, two)]
    assert moved.generation == 1
    for proofs, answers in (here, there):
        assert [proof.version for proof in proofs] == [version.version]
        assert [answer.alias_generation for answer in answers] == [1]
    assert here[1][0].text == there[1][0].text == "Thirty days."


def test_an_adapter_is_the_same_for_every_replica_until_one_discards_it(replica: Open) -> None:
    one, two = replica("one"), replica("two")
    adapter = some_adapter()
    digest = one.adapters.put(adapter, base_model="tiny", files={"manifest.json": b"{}"}).sha256
    assert two.adapters.names() == [digest]
    assert two.adapters.get(digest).to_bytes() == adapter.to_bytes()
    assert (two.adapters.path(digest) / WEIGHTS).read_bytes() == adapter.to_bytes()
    assert two.adapters.read(digest, "manifest.json") == b"{}"
    one.adapters.remove(digest)
    for storage in (one, two):
        assert not storage.adapters.has(digest)
        with pytest.raises(NotFound):
            storage.adapters.get(digest)
        with pytest.raises(NotFound):
            storage.adapters.remove(digest)
    assert one.objects.below("adapters") == {}


def test_bytes_that_changed_in_the_bucket_are_refused_and_a_copy_that_changed_is_fetched_again(replica: Open) -> None:
    one, two = replica("one"), replica("two")
    digest = one.adapters.put(some_adapter(), base_model="tiny").sha256
    copy = one.adapters.path(digest) / WEIGHTS
    copy.write_bytes(some_adapter(2.0).to_bytes())
    assert one.adapters.get(digest).to_bytes() == some_adapter().to_bytes()
    one.objects.put(f"adapters/{digest}/{WEIGHTS}", some_adapter(2.0).to_bytes())
    with pytest.raises(Corrupt, match="has digest"):
        two.adapters.get(digest)
    found = VersionStore(one, "tiny").verify(digest)
    assert not found.intact
    assert found.found is not None
    assert found.found.sha256 != digest


def test_what_is_stored_is_not_overwritten(replica: Open) -> None:
    one = replica("one")
    digest = one.adapters.put(some_adapter(), base_model="tiny", files={"manifest.json": b"first"}).sha256
    one.adapters.put(some_adapter(), base_model="tiny", files={"manifest.json": b"second"})
    assert one.adapters.read(digest, "manifest.json") == b"first"


KILLED = """
import os, signal, sys
from pathlib import Path
from student.storage.bucket import BucketObjects, BucketStorage
from student.storage.config import BucketConfig
from tests.student.bucket_fixtures import some_adapter

put_new = BucketObjects.put_new

def killed(self, key, data):
    if key.endswith(".safetensors"):
        os.kill(os.getpid(), signal.SIGKILL)
    put_new(self, key, data)

BucketObjects.put_new = killed
storage = BucketStorage(sys.argv[1], BucketConfig.model_validate_json(sys.argv[2]), "tiny")
storage.adapters.put(some_adapter(), base_model="tiny", files={"manifest.json": b"{}"})
"""


def test_a_replica_killed_while_it_stores_leaves_no_version_and_its_leftovers_go_in_time(
    replica: Open, url: str, settings: Callable[[str], BucketConfig]
) -> None:
    command = [sys.executable, "-c", KILLED, url, settings("killed").model_dump_json()]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    one = replica("one")
    assert len(one.objects.below("adapters")) == 2
    assert one.adapters.names() == []
    assert one.sweep(3_600) == 0
    assert one.sweep(0) == 2
    digest = one.adapters.put(some_adapter(), base_model="tiny").sha256
    assert one.sweep(0) == 0
    assert one.adapters.names() == [digest]


def test_a_sweep_leaves_alone_what_another_replica_stores_meanwhile(
    replica: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = replica("one"), replica("two")
    version = digest_bytes(some_adapter().to_bytes()).sha256
    two.objects.put(f"adapters/{version}/adapter_config.json", some_adapter().config_json("tiny"))
    below = one.objects.below

    def slow(prefix: str) -> dict[str, datetime]:
        found = below(prefix)
        two.adapters.put(some_adapter(), base_model="tiny")
        return found

    monkeypatch.setattr(one.objects, "below", slow)
    assert one.sweep(0) == 0
    assert replica("three").adapters.get(version).to_bytes() == some_adapter().to_bytes()


def test_what_is_missing_beside_weights_comes_back_when_they_are_stored_again(replica: Open) -> None:
    one, two = replica("one"), replica("two")
    version = one.adapters.put(some_adapter(), base_model="tiny", files={"manifest.json": b"{}"}).sha256
    for file in ("adapter_config.json", "manifest.json"):
        one.objects.delete(f"adapters/{version}/{file}")
    with pytest.raises(Corrupt):
        two.adapters.get(version)
    two.adapters.put(some_adapter(), base_model="tiny", files={"manifest.json": b"{}"})
    assert replica("three").adapters.get(version).to_bytes() == some_adapter().to_bytes()
    assert two.adapters.read(version, "manifest.json") == b"{}"


def test_a_copy_that_is_dropped_while_it_is_read_is_no_error(replica: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    one = replica("one")
    version = one.adapters.put(some_adapter(), base_model="tiny").sha256
    get = AdapterFolders.get

    def dropped(folders: AdapterFolders, name: str) -> Adapter:
        found = get(folders, name)
        folders.remove(name)
        return found

    monkeypatch.setattr(AdapterFolders, "get", dropped)
    assert one.adapters.get(version).to_bytes() == some_adapter().to_bytes()


def test_an_endpoint_that_is_silent_is_given_up_after_four_tries(settings: Callable[[str], BucketConfig]) -> None:
    """Each may take the whole timeout, and whoever asked waits for all of them."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = {"endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}", "timeout_seconds": 0.2}
        storage = BucketStorage("s3://bucket/x", settings("one").model_copy(update=place), "tiny")
        with pytest.raises(Unavailable, match="cannot be reached"):
            storage.objects.read("aliases/live.json")
        silent.setblocking(False)
        tries = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                tries += 1
    assert tries == 4


def test_of_moves_of_an_alias_at_the_same_time_exactly_one_wins(replica: Open) -> None:
    replicas = [Aliases(replica(name).objects) for name in ("one", "two", "three", "four")]
    start = Barrier(len(replicas))

    def move(place: int) -> Alias | None:
        start.wait()
        try:
            return replicas[place].move(
                SetAliasRequest(request_id=f"r{place}", name="live", version=f"{place}" * 64, expected_generation=0)
            )
        except StaleGeneration:
            return None

    with ThreadPoolExecutor(len(replicas)) as threads:
        won = [alias for alias in threads.map(move, range(len(replicas))) if alias is not None]
    assert len(won) == 1
    assert {aliases.get("live") for aliases in replicas} == {won[0]}
    again = SetAliasRequest(request_id="later", name="live", version="base", expected_generation=1)
    assert replicas[0].move(again) == replicas[1].move(again)
    assert replicas[2].get("live").generation == 2


def test_an_endpoint_that_ignores_conditions_is_refused_at_the_start(
    replica: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replica("one")
    one.check()
    assert one.objects.below("probes") == {}
    files: Any = one.objects._files
    plain = files.pipe_file
    monkeypatch.setattr(files, "pipe_file", lambda path, data, **conditions: plain(path, data))
    with pytest.raises(InvalidConfig, match="ignores conditional writes"):
        one.check()


def test_a_bucket_that_is_not_there_is_named_at_the_start(settings: Callable[[str], BucketConfig]) -> None:
    with pytest.raises(InvalidConfig, match="s3://nowhere-at-all/x cannot be used: there is no such bucket"):
        BucketStorage("s3://nowhere-at-all/x", settings("one"), "tiny").check()


def test_credentials_of_the_environment_are_not_used(
    url: str, settings: Callable[[str], BucketConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
    empty = tmp_path / "empty"
    empty.write_text("")
    without = settings("one").model_copy(update={"credentials_file": empty})
    with pytest.raises(InvalidConfig, match="credentials"):
        BucketStorage(url, without, "tiny").check()


def test_the_cache_keeps_to_its_size_and_what_was_dropped_is_fetched_again(
    url: str, settings: Callable[[str], BucketConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = BucketStorage(url, settings("one"), "tiny")
    size = len(some_adapter().to_bytes())
    monkeypatch.setattr(one.adapters, "_most_bytes", 3 * size)
    names = [one.adapters.put(some_adapter(float(value)), base_model="tiny").sha256 for value in range(6)]
    kept = [name for name in names if (settings("one").cache / "adapters" / name).exists()]
    assert names[-1] in kept
    assert len(kept) < 4
    assert [one.adapters.get(name).to_bytes() for name in names] == [
        some_adapter(float(value)).to_bytes() for value in range(6)
    ]


@pytest.mark.parametrize(
    "key", ["../secrets", "edits/../aliases/live.json", "/etc/passwd", "edits//x", "edits/.live.lock"]
)
def test_a_key_leads_nowhere_but_into_the_store(key: str, replica: Open, tmp_path: Path) -> None:
    folder = open_storage(tmp_path / "store", BucketConfig(), "tiny")
    for objects in (replica("one").objects, folder.objects):
        with pytest.raises(NotFound, match="names nothing"):
            objects.read(key)
        with pytest.raises(NotFound, match="names nothing"):
            objects.put(key, b"")


@pytest.mark.parametrize("store", ["s3://", "s3://Bucket/x", "s3://bucket/../other", "s3://bucket//x", "gs://bucket/x"])
def test_a_store_that_is_neither_folder_nor_bucket_is_refused(store: str) -> None:
    with pytest.raises(ValidationError, match="store"):
        StudentConfig.model_validate({"store": store})
