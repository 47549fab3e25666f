"""live, shadow and previous: names that point at versions and move by compare-and-swap.

Each is a small file in the shared store, replaced atomically and read at every use, so that all replicas agree. A move
is repeated without harm under the same request id. Until it is first moved, an alias names the base, generation 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from filelock import FileLock

from common.canonical import canonical_json
from common.errors import Conflict, Corrupt, StaleGeneration
from common.files import write_atomically
from common.lora.residency import BASE_VERSION
from common.versions import Alias
from student import metrics
from student.requests import AliasName, SetAliasRequest

NAMES: tuple[AliasName, ...] = get_args(AliasName)


class Aliases:
    """Aliases under `root`. Methods touch the disk and may wait for a lock: call `move` off the event loop."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def get(self, name: AliasName) -> Alias:
        """Raises Corrupt when the file cannot be read."""
        found = self._read(name)[0]
        metrics.saw(found)
        return found

    def all(self) -> tuple[Alias, ...]:
        return tuple(self.get(name) for name in NAMES)

    def naming(self, version: str) -> list[str]:
        """The aliases that point at a version."""
        return [alias.name for alias in self.all() if alias.version == version]

    def move(self, request: SetAliasRequest) -> Alias:
        """Points the alias at the version. Raises StaleGeneration, or Conflict for a reused request id."""
        with FileLock(self._root / f".{request.name}.lock"):
            current, request_id = self._read(request.name)
            if request_id == request.request_id:
                if current.version != request.version or current.generation != request.expected_generation + 1:
                    raise Conflict(
                        "this request id was used with other content", ids={"request_id": request.request_id}
                    )
                return current
            if current.generation != request.expected_generation:
                raise StaleGeneration(
                    f"alias {request.name} is at generation {current.generation}, not {request.expected_generation}",
                    ids={"alias": request.name, "generation": str(current.generation)},
                )
            moved = Alias(name=request.name, version=request.version, generation=current.generation + 1)
            write_atomically(
                self._path(request.name),
                canonical_json(
                    {"version": moved.version, "generation": moved.generation, "request_id": request.request_id}
                ),
            )
            metrics.saw(moved)
            return moved

    def _read(self, name: AliasName) -> tuple[Alias, str]:
        try:
            said = json.loads(self._path(name).read_bytes())
            return Alias(name=name, version=said["version"], generation=said["generation"]), str(said["request_id"])
        except FileNotFoundError:
            return Alias(name=name, version=BASE_VERSION, generation=0), ""
        except (ValueError, KeyError, TypeError):
            raise Corrupt(f"alias {name}: aliases/{name}.json cannot be read", ids={"alias": name}) from None

    def _path(self, name: AliasName) -> Path:
        return self._root / f"{name}.json"
