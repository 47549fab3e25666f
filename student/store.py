"""The shared store of versions: adapters and edits by content, and which candidate became which version.

Nothing in it is ever overwritten, every read is verified, and any replica recognises a candidate that another one has
trained. Several processes may write at once.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from common.canonical import canonical_json, digest_bytes
from common.edits import edit_bytes, edit_digest
from common.errors import Corrupt, NotFound
from common.lora.adapter_format import Adapter
from common.lora.residency import BASE_VERSION
from common.types import Digest, SelfEdit
from common.versions import Version
from student.messages import Verification
from student.storage.port import Storage

MANIFEST_FILE = "manifest.json"
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class VersionStore:
    """Everything in `storage` but the aliases."""

    def __init__(self, storage: Storage, base_model: str) -> None:
        self._adapters = storage.adapters
        self._objects = storage.objects
        self._base_model = base_model
        self._manifests: dict[str, Version] = {}

    def has(self, version: str) -> bool:
        return version == BASE_VERSION or self._adapters.has(version)

    def adapter(self, version: str) -> Adapter:
        """Raises NotFound, or Corrupt naming the file that does not fit."""
        return self._adapters.get(version)

    def folder(self, version: str) -> Path:
        """Where an adapter lies, in PEFT's format; `adapter` verifies it."""
        return self._adapters.path(version)

    def version(self, version: str) -> Version:
        """How a version was made. Raises NotFound or Corrupt."""
        if version == BASE_VERSION:
            return Version(version=BASE_VERSION)
        if version in self._manifests and not self.has(version):
            self._manifests.pop(version, None)
            raise NotFound(f"version {version} is not in the store", ids={"version": version})
        return self._manifest(version)

    def _manifest(self, version: str) -> Version:
        """How a version that was there a moment ago was made: that never changes. Several threads may ask."""
        known = self._manifests.get(version)
        if known is None:
            data = self._adapters.read(version, MANIFEST_FILE)
            try:
                known = self._manifests[version] = Version.model_validate_json(data)
            except ValidationError:
                raise Corrupt(
                    f"version {version}: {MANIFEST_FILE} cannot be read",
                    ids={"version": version, "file": MANIFEST_FILE},
                ) from None
        return known

    def put(self, adapter: Adapter, made: Version) -> Version:
        """Stores a trained adapter under its digest and its candidate key; `made.version` is filled in."""
        weights = adapter.to_bytes()
        digest = digest_bytes(weights)
        manifest = made.model_copy(update={"version": digest.sha256, "adapter": digest})
        self._adapters.put(
            adapter, base_model=self._base_model, files={MANIFEST_FILE: canonical_json(manifest)}, weights=weights
        )
        # Two edits may have the same examples: each candidate keeps its own history of the version they share.
        self._objects.put(_candidate(made.candidate_key), canonical_json(manifest))
        return manifest

    def trained(self, candidate_key: str) -> Version | None:
        """The version that this candidate became, verified, if there is one. Raises Corrupt when its bytes are off."""
        try:
            made = Version.model_validate_json(self._objects.read(_candidate(candidate_key)))
        except NotFound:
            return None
        except ValidationError:
            raise Corrupt(f"candidates/{candidate_key}.json cannot be read") from None
        try:
            self._adapters.get(made.version)
        except NotFound:
            return None
        return made

    def put_edit(self, edit: SelfEdit) -> None:
        data = edit_bytes(edit)
        self._objects.put_new(_edit(digest_bytes(data).sha256), data)

    def edit(self, sha256: str) -> SelfEdit:
        """Raises NotFound or Corrupt."""
        data = self._objects.read(_edit(sha256))
        found = digest_bytes(data).sha256
        if found != sha256:
            raise Corrupt(
                f"edits/{sha256} holds bytes with digest {found}", reason="DIGEST_MISMATCH", ids={"sha256": sha256}
            )
        try:
            content = json.loads(data)
            edit = SelfEdit.model_validate({**content, "digest": {"sha256": sha256}})
        except (ValueError, TypeError):
            raise Corrupt(f"edits/{sha256} cannot be read", ids={"sha256": sha256}) from None
        return edit.model_copy(update={"digest": edit_digest(edit)})

    def versions(self) -> list[Version]:
        """All versions but the base, oldest first. One that cannot be read is left to VerifyVersion."""
        found = []
        for name in self._adapters.names():
            try:
                found.append(self._manifest(name))
            except (NotFound, Corrupt):
                found.append(Version(version=name, adapter=Digest(sha256=name)))
        return sorted(found, key=lambda version: (version.create_time or EPOCH, version.version))

    def verify(self, version: str) -> Verification:
        """Reads a version's bytes again. Raises NotFound for an unknown one."""
        expected = Digest(sha256=version)
        try:
            found = self._adapters.found_digest(version)
        except Corrupt as error:
            return Verification(expected=expected, detail=error.message)
        try:
            self._adapters.stored(version)
        except Corrupt as error:
            return Verification(expected=expected, found=found, detail=error.message)
        return Verification(expected=expected, found=found, intact=True)

    def discard(self, version: str) -> None:
        """Deletes a version. Raises NotFound."""
        self._adapters.remove(version)
        self._manifests.pop(version, None)


def _candidate(key: str) -> str:
    return f"candidates/{key}.json"


def _edit(sha256: str) -> str:
    return f"edits/{sha256}.json"
