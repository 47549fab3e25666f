"""A store in a folder, on this machine or on a file system that all replicas share. Implements student/storage/port.py.

Files are written under a temporary name, synced, renamed. Temporary names start with a dot; locks are the kernel's, so
that those of a process that was killed are free at once.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from common.errors import InvalidConfig, NotFound
from common.files import write_atomically
from common.lora.adapter_folder import AdapterFolders
from student.storage.port import checked

FOLDERS = ("adapters", "edits", "candidates", "aliases")


class FolderStorage:
    """Everything under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.objects = FolderObjects(root)
        self.adapters = AdapterFolders(root / "adapters")
        (root / "aliases").mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        probe = self._root / f".probe.{uuid4().hex}"
        try:
            write_atomically(probe, b"")
            probe.unlink()
        except OSError as error:
            raise InvalidConfig(f"store: cannot write to {self._root}: {error.strerror}") from None
        try:
            with _lock(self._root / "aliases" / ".check.lock"):
                pass
        except OSError as error:
            raise InvalidConfig(
                f"store: {self._root} is on a file system without locks ({error.strerror}), where two replicas could "
                "move an alias at once; use another, or a bucket"
            ) from None

    def sweep(self, older_than_seconds: float) -> int:
        return sum(sweep(self._root / name, older_than_seconds) for name in FOLDERS)


class FolderObjects:
    """Each key is a path under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"{key} is not in the store") from None

    def put(self, key: str, data: bytes) -> None:
        write_atomically(self._path(key), data)

    def put_new(self, key: str, data: bytes) -> None:
        if not self._path(key).exists():
            self.put(key, data)

    def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
        path = self._path(key)
        with _lock(path.parent / f".{path.stem}.lock"):
            try:
                current: bytes | None = path.read_bytes()
            except FileNotFoundError:
                current = None
            changed = change(current)
            if changed is not None:
                self.put(key, changed)

    def _path(self, key: str) -> Path:
        return self._root / checked(key)


def _lock(file: Path) -> FileLock:
    """The kernel's or none: a file that stands for a lock would outlive a process that was killed."""
    return FileLock(file, fallback_to_soft=False)


def sweep(folder: Path, older_than_seconds: float) -> int:
    """Removes temporary files and folders that nobody has written to for so long; how many there were."""
    removed = 0
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not entry.name.startswith(".") or entry.name.endswith(".lock"):
            continue
        # Another replica may have finished it, or sweeps too.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - _newest(entry) < older_than_seconds:
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
            removed += 1
    return removed


def _newest(entry: Path) -> float:
    inside = entry.iterdir() if entry.is_dir() else ()
    times: list[float] = [path.lstat().st_mtime for path in (entry, *inside)]
    return max(times)
