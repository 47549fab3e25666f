"""Adapters in a bucket, with a bounded copy on disk of those that were read.

The weights are written last: a version is there when they are. What is read is compared with its digest every time,
from the bucket and from the copy alike; a copy that does not fit is fetched again, an object that does not is refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from common.canonical import digest_bytes
from common.errors import Corrupt, NotFound
from common.lora.adapter_folder import AdapterFolders
from common.lora.adapter_format import CONFIG_FILE, WEIGHTS_FILE, Adapter, parse_adapter
from common.types import Digest
from student.storage.config import BucketConfig
from student.storage.folder import sweep

if TYPE_CHECKING:
    from student.storage.bucket import BucketObjects

MIB = 1 << 20


class BucketAdapters:
    """Each adapter's files lie under adapters/<sha256>/."""

    def __init__(self, objects: BucketObjects, config: BucketConfig, base_model: str) -> None:
        self._objects = objects
        self._copies = AdapterFolders(config.cache / "adapters")
        self._folder = config.cache / "adapters"
        self._most_bytes = config.cache_mib * MIB
        self._base_model = base_model

    def has(self, version: str) -> bool:
        return self._objects.has(_key(version, WEIGHTS_FILE))

    def names(self) -> list[str]:
        keys = (key.split("/") for key in self._objects.below("adapters"))
        return sorted(parts[1] for parts in keys if len(parts) == 3 and parts[2] == WEIGHTS_FILE)

    def path(self, version: str) -> Path:
        self.get(version)
        return self._copies.path(version)

    def put(
        self,
        adapter: Adapter,
        *,
        base_model: str,
        files: Mapping[str, bytes] | None = None,
        weights: bytes | None = None,
    ) -> Digest:
        """Stores an adapter unless it is there. Raises Corrupt when it is there with other bytes."""
        weights = adapter.to_bytes() if weights is None else weights
        digest = digest_bytes(weights)
        version = digest.sha256
        beside = {CONFIG_FILE: adapter.config_json(base_model), **(files or {})}
        if self.has(version):
            # What lies beside the weights may have gone by a sweep or a discard just when they came: it is put back.
            for name, data in beside.items():
                self._objects.put_new(_key(version, name), data)
            self.stored(version)
            return digest
        for name, data in beside.items():
            self._objects.put_new(_key(version, name), data)
        self._objects.put_new(_key(version, WEIGHTS_FILE), weights)
        # Should another replica have swept away what it took for a leftover, it is put back.
        for name, data in beside.items():
            self._objects.put_new(_key(version, name), data)
        self._copy(adapter, weights)
        return digest

    def get(self, version: str) -> Adapter:
        if not self.has(version):
            raise _unknown(version)
        try:
            adapter = self._copies.get(version)
        except NotFound:
            return self.stored(version)
        except Corrupt:
            self._drop(version)
            return self.stored(version)
        # Another thread may just have dropped the copy to make room.
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._copies.path(version))
        return adapter

    def stored(self, version: str) -> Adapter:
        weights, config = self.read(version, WEIGHTS_FILE), self.read(version, CONFIG_FILE)
        adapter = parse_adapter(weights, config, name=version)
        found = digest_bytes(weights).sha256
        if found != version:
            raise Corrupt(
                f"version {version}: {WEIGHTS_FILE} has digest {found}",
                reason="DIGEST_MISMATCH",
                ids={"version": version, "file": WEIGHTS_FILE},
            )
        self._copy(adapter, weights)
        return adapter

    def found_digest(self, version: str) -> Digest:
        return digest_bytes(self.read(version, WEIGHTS_FILE))

    def read(self, version: str, file: str) -> bytes:
        try:
            return self._objects.read(_key(version, file))
        except NotFound:
            if file == WEIGHTS_FILE or not self.has(version):
                raise _unknown(version) from None
            raise Corrupt(
                f"version {version}: {file} is missing",
                reason="ADAPTER_CORRUPT",
                ids={"version": version, "file": file},
            ) from None

    def remove(self, version: str) -> None:
        if not self.has(version):
            raise _unknown(version)
        # Without its weights it is gone; what is left then is a leftover.
        self._objects.delete(_key(version, WEIGHTS_FILE))
        for key in self._objects.below(f"adapters/{version}"):
            self._objects.delete(key)
        self._drop(version)

    def sweep(self, older_than_seconds: float) -> int:
        """Files whose weights never came."""
        written = self._objects.below("adapters")
        whole = {key.rpartition("/")[0] for key in written if key.endswith(f"/{WEIGHTS_FILE}")}
        now = datetime.now(UTC)
        removed = 0
        for key, time in written.items():
            folder = key.rpartition("/")[0]
            if folder in whole or (now - time).total_seconds() < older_than_seconds:
                continue
            # The list is older than this moment: another replica may be storing the very version again.
            if not self._objects.has(f"{folder}/{WEIGHTS_FILE}"):
                self._objects.delete(key)
                removed += 1
        return removed + sweep(self._folder, older_than_seconds)

    def _copy(self, adapter: Adapter, weights: bytes) -> None:
        try:
            name = self._copies.put(adapter, base_model=self._base_model, weights=weights).sha256
        except Corrupt:
            self._drop(digest_bytes(weights).sha256)
            name = self._copies.put(adapter, base_model=self._base_model, weights=weights).sha256
        self._bound(name)

    def _bound(self, keep: str) -> None:
        """Drops copies that were used longest ago until the rest fits; `keep` stays."""
        sizes = {}
        for name in self._copies.names():
            try:
                files = [file.stat() for file in self._copies.path(name).iterdir()]
                sizes[name] = self._copies.path(name).stat().st_mtime, sum(file.st_size for file in files)
            except FileNotFoundError:
                continue
        total = sum(size for _, size in sizes.values())
        for name in sorted(sizes, key=lambda name: sizes[name][0]):
            if total <= self._most_bytes:
                return
            if name != keep:
                self._drop(name)
                total -= sizes[name][1]

    def _drop(self, version: str) -> None:
        try:
            self._copies.remove(version)
        except NotFound:
            return


def _key(version: str, file: str) -> str:
    return f"adapters/{version}/{file}"


def _unknown(version: str) -> NotFound:
    return NotFound(f"version {version} is not in the store", ids={"version": version})
