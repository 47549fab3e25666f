"""The teacher's own versions: stored by digest, one of them in use, all of them loadable.

A policy is an adapter folder (common/lora/adapter_folder.py) with a manifest. The one in use is chosen by
compare-and-swap on a generation that survives restarts. A policy's bytes are verified before the generator gets them.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

from pydantic import Field

from common.errors import Conflict, Corrupt, NotFound, StaleGeneration
from common.files import sha256_file
from common.lora.adapter_folder import AdapterFolders
from common.lora.adapter_format import WEIGHTS_FILE
from common.metrics import show_only, shown
from common.types import Domain, Recipe, RequestId
from teacher import metrics
from teacher.generator import BASE, Generator
from teacher.messages import ActivePolicy, Policy, SetPolicyRequest
from teacher.store import read_record, write_record

FOLDER = "policies"
MANIFEST_FILE = "manifest.json"
REMEMBERED_CHOICES = 256


def is_stored(root: Path, version: str) -> bool:
    """Whether a teacher whose store is `root` could write with a version; creates nothing."""
    return version == BASE or (root / FOLDER / version / WEIGHTS_FILE).is_file()


class Manifest(Domain):
    """What stands beside a policy's weights."""

    parent: str
    create_time: datetime
    kept_edits: int
    pairs: int
    first_loss: float
    last_loss: float
    seed: int
    recipe: Recipe
    versions: dict[str, str]


class _Choice(Domain):
    request_id: RequestId
    policy_version: str
    generation: int


class _Active(Domain):
    policy_version: str = BASE
    generation: int = Field(default=0, ge=0)
    choices: tuple[_Choice, ...] = ()


class Policies:
    """Policies under `root`/policies, and which of them `generator` writes with."""

    def __init__(self, root: Path, generator: Generator) -> None:
        self._root = root
        self.folders = AdapterFolders(root / FOLDER)
        self._active_file = root / "active.json"
        self._generator = generator
        self._verified: set[str] = set()
        self._choosing = asyncio.Lock()

    def active(self) -> ActivePolicy:
        """The policy in use and its generation."""
        record = self._record()
        return ActivePolicy(policy_version=record.policy_version, policy_generation=record.generation)

    def show(self) -> None:
        """Lets the metrics tell which policy is in use."""
        active = self.active()
        metrics.POLICY_GENERATION.set(active.policy_generation)
        show_only(metrics.POLICY, shown(active.policy_version))
        metrics.POLICIES.set(len(self.folders.names()))

    def check(self, version: str) -> None:
        """Raises NotFound when a version is neither the base nor in the store."""
        if not is_stored(self._root, version):
            raise NotFound(f"policy {version} is not in the store", ids={"policy_version": version})

    async def ensure_loaded(self, version: str) -> None:
        """Makes the generator hold a version. Raises NotFound, Corrupt, or NotPossible when it cannot be loaded."""
        if version == BASE:
            return
        if version not in self._verified:
            await asyncio.to_thread(self.folders.get, version)
            self._verified.add(version)
        await self._generator.load(version, self.folders.path(version))

    async def choose(self, request: SetPolicyRequest) -> ActivePolicy:
        """Puts a policy in use. The same request again changes nothing.

        Raises StaleGeneration, Conflict when the id came with another version, and what ensure_loaded raises.
        """
        async with self._choosing:
            earlier = self._earlier(request.request_id, request.policy_version)
            if earlier is not None:
                return earlier
            found = self._record().generation
            if request.expected_generation != found:
                raise StaleGeneration(
                    f"expected_generation is {request.expected_generation}, but the policy's generation is {found}",
                    ids={"policy_generation": str(found)},
                )
            return await self._put_in_use(request.request_id, request.policy_version)

    async def activate(self, request_id: str, version: str) -> ActivePolicy:
        """Puts a policy in use whatever the generation is: what Learn does when it is asked to activate."""
        async with self._choosing:
            return self._earlier(request_id, version) or await self._put_in_use(request_id, version)

    async def all(self) -> list[Policy]:
        """The base and all stored policies, oldest first."""
        loaded = await self._generator.loaded()
        stored = [self.describe(version, loaded=version in loaded) for version in self.folders.names()]
        metrics.POLICIES.set(len(stored))
        return [Policy(loaded=True), *sorted(stored, key=lambda policy: str(policy.create_time))]

    def describe(self, version: str, *, loaded: bool) -> Policy:
        """A stored policy as its manifest tells it. Raises NotFound or Corrupt."""
        self.check(version)
        folder = self.folders.path(version)
        manifest = read_record(folder / MANIFEST_FILE, Manifest)
        if manifest is None:
            raise Corrupt(f"policy {version} has no {MANIFEST_FILE}", ids={"policy_version": version})
        size = (folder / WEIGHTS_FILE).stat().st_size
        return Policy.model_validate(
            {
                "policy_version": version,
                "adapter": {"sha256": version, "size_bytes": size},
                "loaded": loaded,
                **manifest.model_dump(exclude={"seed", "recipe", "versions"}),
            }
        )

    def intact(self, version: str) -> bool:
        """Whether the stored weights still have the digest that names them."""
        return self.folders.has(version) and sha256_file(self.folders.path(version) / WEIGHTS_FILE).sha256 == version

    async def _put_in_use(self, request_id: str, version: str) -> ActivePolicy:
        self.check(version)
        await self.ensure_loaded(version)
        record = self._record()
        choice = _Choice(request_id=request_id, policy_version=version, generation=record.generation + 1)
        write_record(
            self._active_file,
            _Active(
                policy_version=version,
                generation=choice.generation,
                choices=(*record.choices, choice)[-REMEMBERED_CHOICES:],
            ),
        )
        self.show()
        return ActivePolicy(policy_version=version, policy_generation=choice.generation)

    def _earlier(self, request_id: str, version: str) -> ActivePolicy | None:
        """What the same request brought about before. Raises Conflict."""
        for choice in self._record().choices:
            if choice.request_id == request_id:
                if choice.policy_version != version:
                    raise Conflict("this request id was used with other content", ids={"request_id": request_id})
                return ActivePolicy(policy_version=version, policy_generation=choice.generation)
        return None

    def _record(self) -> _Active:
        return read_record(self._active_file, _Active) or _Active()
