"""live, shadow and previous: names that point at versions and move by compare-and-swap.

Each is a small file in the shared store, replaced atomically and read at every use, so that all replicas agree. A move
is repeated without harm under the same request id. Until it is first moved, an alias names the base, generation 0.
"""

from __future__ import annotations

import json
from typing import get_args

from common.canonical import canonical_json
from common.errors import Conflict, Corrupt, NotFound, StaleGeneration
from common.lora.residency import BASE_VERSION
from common.versions import Alias
from student import metrics
from student.requests import AliasName, SetAliasRequest
from student.storage.port import Objects

NAMES: tuple[AliasName, ...] = get_args(AliasName)


class Aliases:
    """Aliases in `objects`. Methods touch disk or network and may wait for a lock: call them off the event loop."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def get(self, name: AliasName) -> Alias:
        """Raises Corrupt when the file cannot be read."""
        try:
            data: bytes | None = self._objects.read(_key(name))
        except NotFound:
            data = None
        found = _parsed(name, data)[0]
        metrics.saw(found)
        return found

    def all(self) -> tuple[Alias, ...]:
        return tuple(self.get(name) for name in NAMES)

    def naming(self, version: str) -> list[str]:
        """The aliases that point at a version."""
        return [alias.name for alias in self.all() if alias.version == version]

    def move(self, request: SetAliasRequest) -> Alias:
        """Points the alias at the version. Raises StaleGeneration, or Conflict for a reused request id."""
        moved = Alias(name=request.name, version=request.version, generation=request.expected_generation + 1)

        def change(data: bytes | None) -> bytes | None:
            current, request_id = _parsed(request.name, data)
            if request_id == request.request_id:
                if current != moved:
                    raise Conflict(
                        "this request id was used with other content", ids={"request_id": request.request_id}
                    )
                return None
            if current.generation != request.expected_generation:
                raise StaleGeneration(
                    f"alias {request.name} is at generation {current.generation}, not {request.expected_generation}",
                    ids={"alias": request.name, "generation": str(current.generation)},
                )
            return canonical_json(
                {"version": moved.version, "generation": moved.generation, "request_id": request.request_id}
            )

        self._objects.update(_key(request.name), change)
        metrics.saw(moved)
        return moved


def _parsed(name: AliasName, data: bytes | None) -> tuple[Alias, str]:
    if data is None:
        return Alias(name=name, version=BASE_VERSION, generation=0), ""
    try:
        said = json.loads(data)
        return Alias(name=name, version=said["version"], generation=said["generation"]), str(said["request_id"])
    except (ValueError, KeyError, TypeError):
        raise Corrupt(f"alias {name}: aliases/{name}.json cannot be read", ids={"alias": name}) from None


def _key(name: AliasName) -> str:
    return f"aliases/{name}.json"
