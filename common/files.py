"""Files that survive a crash at any moment: written under a temporary name, synced, renamed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from common.canonical import digest_bytes
from common.errors import Corrupt, NotFound
from common.types import Digest

CHUNK_BYTES = 1 << 20


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces `path` by `data`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> Digest:
    """Digest of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return Digest(sha256=digest.hexdigest(), size_bytes=size)


class ContentStore:
    """Bytes by their digest, one file each; never overwritten, verified at every read."""

    def __init__(self, root: Path, suffix: str = "") -> None:
        self._root = root
        self._suffix = suffix
        root.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self._root / f"{sha256}{self._suffix}"

    def put(self, data: bytes) -> Digest:
        """Stores `data` unless it is there, and names it."""
        digest = digest_bytes(data)
        if not self.path(digest.sha256).exists():
            write_atomically(self.path(digest.sha256), data)
        return digest

    def has(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def get(self, sha256: str) -> bytes:
        """Raises NotFound, or Corrupt when the bytes no longer fit their name."""
        try:
            data = self.path(sha256).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"{self._root.name}/{sha256} is not in the store", ids={"sha256": sha256}) from None
        found = digest_bytes(data).sha256
        if found != sha256:
            raise Corrupt(
                f"{self._root.name}/{sha256} holds bytes with digest {found}",
                reason="DIGEST_MISMATCH",
                ids={"sha256": sha256},
            )
        return data

    def names(self) -> list[str]:
        """All digests in the store, sorted."""
        return sorted(p.name.removesuffix(self._suffix) for p in self._root.iterdir() if not p.name.startswith("."))
