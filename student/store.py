"""The shared store of versions: adapters and edits by content, and which candidate became which version.

Nothing in it is ever overwritten, every read is verified, and any replica recognises a candidate that another one has
trained. Several processes may write at once.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from common.canonical import canonical_json
from common.edits import edit_bytes, edit_digest
from common.errors import Corrupt, NotFound
from common.files import ContentStore, write_atomically
from common.lora.adapter_folder import AdapterFolders
from common.lora.adapter_format import Adapter
from common.lora.residency import BASE_VERSION
from common.types import Digest, SelfEdit
from common.versions import Version
from student.messages import Verification

MANIFEST_FILE = "manifest.json"
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class VersionStore:
    """Everything under `root` but the aliases."""

    def __init__(self, root: Path, base_model: str) -> None:
        self._folders = AdapterFolders(root / "adapters")
        self._edits = ContentStore(root / "edits", ".json")
        self._candidates = root / "candidates"
        self._base_model = base_model
        self._manifests: dict[str, Version] = {}

    def has(self, version: str) -> bool:
        return version == BASE_VERSION or self._folders.has(version)

    def adapter(self, version: str) -> Adapter:
        """Raises NotFound, or Corrupt naming the file that does not fit."""
        return self._folders.get(version)

    def folder(self, version: str) -> Path:
        """Where an adapter lies, in PEFT's format; `adapter` verifies it."""
        return self._folders.path(version)

    def version(self, version: str) -> Version:
        """How a version was made. Raises NotFound or Corrupt."""
        if version == BASE_VERSION:
            return Version(version=BASE_VERSION)
        if version not in self._manifests:
            data = self._folders.read(version, MANIFEST_FILE)
            try:
                self._manifests[version] = Version.model_validate_json(data)
            except ValidationError:
                raise Corrupt(
                    f"version {version}: {MANIFEST_FILE} cannot be read",
                    ids={"version": version, "file": MANIFEST_FILE},
                ) from None
        elif not self.has(version):
            del self._manifests[version]
            raise NotFound(f"version {version} is not in the store", ids={"version": version})
        return self._manifests[version]

    def put(self, adapter: Adapter, made: Version) -> Version:
        """Stores a trained adapter under its digest and its candidate key; `made.version` is filled in."""
        weights = adapter.to_bytes()
        digest = self._folders.name(weights)
        manifest = made.model_copy(update={"version": digest.sha256, "adapter": digest})
        self._folders.put(
            adapter, base_model=self._base_model, files={MANIFEST_FILE: canonical_json(manifest)}, weights=weights
        )
        # Two edits may have the same examples: each candidate keeps its own history of the version they share.
        write_atomically(self._candidate(made.candidate_key), canonical_json(manifest))
        return manifest

    def trained(self, candidate_key: str) -> Version | None:
        """The version that this candidate became, verified, if there is one. Raises Corrupt when its bytes are off."""
        try:
            made = Version.model_validate_json(self._candidate(candidate_key).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise Corrupt(f"candidates/{candidate_key}.json cannot be read") from None
        if not self._folders.has(made.version):
            return None
        self._folders.get(made.version)
        return made

    def put_edit(self, edit: SelfEdit) -> None:
        self._edits.put(edit_bytes(edit))

    def edit(self, sha256: str) -> SelfEdit:
        """Raises NotFound or Corrupt."""
        try:
            content = json.loads(self._edits.get(sha256))
            edit = SelfEdit.model_validate({**content, "digest": {"sha256": sha256}})
        except (ValueError, TypeError):
            raise Corrupt(f"edits/{sha256} cannot be read", ids={"sha256": sha256}) from None
        return edit.model_copy(update={"digest": edit_digest(edit)})

    def versions(self) -> list[Version]:
        """All versions but the base, oldest first. One that cannot be read is left to VerifyVersion."""
        found = []
        for name in self._folders.names():
            try:
                found.append(self.version(name))
            except (NotFound, Corrupt):
                found.append(Version(version=name, adapter=Digest(sha256=name)))
        return sorted(found, key=lambda version: (version.create_time or EPOCH, version.version))

    def verify(self, version: str) -> Verification:
        """Reads a version's bytes again. Raises NotFound for an unknown one."""
        expected = Digest(sha256=version)
        try:
            found = self._folders.found_digest(version)
        except Corrupt as error:
            return Verification(expected=expected, detail=error.message)
        try:
            self._folders.get(version)
        except Corrupt as error:
            return Verification(expected=expected, found=found, detail=error.message)
        return Verification(expected=expected, found=found, intact=True)

    def discard(self, version: str) -> None:
        """Deletes a version. Raises NotFound."""
        self._folders.remove(version)
        self._manifests.pop(version, None)

    def _candidate(self, key: str) -> Path:
        return self._candidates / f"{key}.json"
