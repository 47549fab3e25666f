"""What a store of versions stands on. student/store.py and student/aliases.py call it; folder.py and bucket.py are it.

Whatever is written appears whole or not at all, and any number of replicas may write at once. Methods touch disk or
network: call them off the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from common.errors import NotFound
from common.lora.adapter_format import Adapter
from common.types import Digest

KEY = re.compile(r"[a-z]+(/[A-Za-z0-9][A-Za-z0-9_.-]*)+")


class Objects(Protocol):
    """Small files by key, such as edits/<sha256>.json. Every method raises NotFound for a key that is none."""

    def read(self, key: str) -> bytes:
        """Raises NotFound."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Writes it, in place of what was there."""
        ...

    def put_new(self, key: str, data: bytes) -> None:
        """Writes it unless there is something: that is as good."""
        ...

    def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Puts `change`(what is there, or None) in its place, or leaves it at None. Nobody else's write comes between.

        `change` may be called more than once, and what it raises leaves all as it was.
        """
        ...


class Adapters(Protocol):
    """Adapters by digest, never overwritten and verified at every read (common/lora/adapter_folder.py)."""

    def has(self, version: str) -> bool: ...

    def names(self) -> list[str]:
        """All digests in the store, sorted."""
        ...

    def path(self, version: str) -> Path:
        """A folder with the adapter in PEFT's format; `get` verifies it."""
        ...

    def put(
        self,
        adapter: Adapter,
        *,
        base_model: str,
        files: Mapping[str, bytes] | None = None,
        weights: bytes | None = None,
    ) -> Digest: ...

    def get(self, version: str) -> Adapter:
        """Raises NotFound, or Corrupt when the bytes do not fit their name or one another."""
        ...

    def stored(self, version: str) -> Adapter:
        """As `get`, from the store itself and no copy of it."""
        ...

    def found_digest(self, version: str) -> Digest:
        """The digest that the stored weights have now. Raises NotFound."""
        ...

    def read(self, version: str, file: str) -> bytes:
        """One stored file of an adapter. Raises NotFound, or Corrupt when only the file is missing."""
        ...

    def remove(self, version: str) -> None:
        """Deletes an adapter; it is gone for every replica at once. Raises NotFound."""
        ...


class Storage(Protocol):
    """A store."""

    @property
    def objects(self) -> Objects: ...

    @property
    def adapters(self) -> Adapters: ...

    def check(self) -> None:
        """Tries what all else relies on. Raises InvalidConfig."""
        ...

    def sweep(self, older_than_seconds: float) -> int:
        """Removes what replicas that were killed left half done so long ago; how much that was."""
        ...


def checked(key: str) -> str:
    """The key, which leads nowhere but into the store. Raises NotFound."""
    if not KEY.fullmatch(key):
        raise NotFound(f"{key!r} names nothing in the store")
    return key
