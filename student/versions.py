"""What a caller means by a version: the base, a digest, or an alias, looked up once a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import Corrupt, NotFound
from common.lora.residency import BASE_VERSION
from student.aliases import NAMES, Aliases
from student.store import VersionStore

DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Resolved:
    """A version, and the generation of the alias that led to it (0 when the version was named)."""

    version: str
    generation: int = 0


class Versions:
    """Looks versions up, in the store every time: call it off the event loop. Used by every actor that is told one."""

    def __init__(self, store: VersionStore, aliases: Aliases) -> None:
        self._store = store
        self._aliases = aliases

    def resolve(self, reference: str) -> Resolved:
        """Raises NotFound naming the reference."""
        for name in NAMES:
            if reference == name:
                alias = self._aliases.get(name)
                self._known(alias.version)
                return Resolved(alias.version, alias.generation)
        if reference != BASE_VERSION and not DIGEST.fullmatch(reference):
            raise NotFound(
                f"version {reference} is unknown: it is no alias, no digest and not base", ids={"version": reference}
            )
        self._known(reference)
        return Resolved(reference)

    def resolve_all(self, references: tuple[str, ...]) -> list[Resolved]:
        """One entry a version, in the order of their first mention."""
        found: dict[str, Resolved] = {}
        for reference in references:
            resolved = self.resolve(reference)
            found.setdefault(resolved.version, resolved)
        return list(found.values())

    def parent(self, version: str) -> str:
        return self._store.version(version).parent_version or BASE_VERSION

    def ancestors(self, version: str) -> Iterator[str]:
        """Parents in turn, nearest first, down to the base; none twice.

        Ends where the record of a version is gone or cannot be read: what came before it is not known.
        """
        met = {version}
        while version != BASE_VERSION:
            try:
                version = self.parent(version)
            except (NotFound, Corrupt):
                return
            # Bytes that were discarded and came again from another training may name one of their own line.
            if version in met:
                return
            met.add(version)
            yield version

    def _known(self, version: str) -> None:
        if not self._store.has(version):
            raise NotFound(f"version {version} is not in the store", ids={"version": version})
