"""Keeps at most so many adapters attached to the base; the least recently used one leaves first.

A version is immutable, so an attached adapter stays good as long as its file does; the liveness proof checks both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from common.lora.adapter_format import Adapter
from common.lora.attachment import AttachedModel

BASE_VERSION = "base"
LoadAdapter = Callable[[str], Adapter]


class Residents:
    """Versions attached to one base. `load` reads and verifies a version's adapter, or raises a SealError."""

    def __init__(self, attached: AttachedModel, load: LoadAdapter, limit: int) -> None:
        self._attached = attached
        self._load = load
        self._limit = limit
        self._resident: OrderedDict[str, None] = OrderedDict()

    @property
    def versions(self) -> tuple[str, ...]:
        """Attached versions, least recently used first."""
        return tuple(self._resident)

    @contextmanager
    def active(self, version: str) -> Iterator[None]:
        """Within, the model is that version; after, it is the bare base again."""
        if version != BASE_VERSION:
            self.ensure(version)
        with self._attached.active(None if version == BASE_VERSION else version):
            yield

    def lots(self, versions: Sequence[str]) -> list[list[str]]:
        """The versions, each once, in lots that can stand on the base together."""
        once = list(dict.fromkeys(versions))
        return [once[start : start + self._limit] for start in range(0, len(once), self._limit)]

    def ensure(self, version: str) -> None:
        """Attaches a version unless it is. Raises what loading raises, and Corrupt when it does not fit the base."""
        if version not in self._resident:
            adapter = self._load(version)
            while len(self._resident) >= self._limit:
                self.release(next(iter(self._resident)))
            self._attached.load(version, adapter)
            self._resident[version] = None
        self._resident.move_to_end(version)

    def release(self, version: str) -> None:
        """Detaches a version if it is attached."""
        if version in self._resident:
            del self._resident[version]
            self._attached.detach(version)
