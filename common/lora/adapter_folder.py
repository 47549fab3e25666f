"""Adapters on disk: one folder each, named by digest, written once and verified at every read.

A folder appears by rename and is never changed again. The student's store and the teacher's policies stand on this.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from common.canonical import digest_bytes
from common.errors import Corrupt, NotFound
from common.files import sync_folder
from common.lora.adapter_format import CONFIG_FILE, WEIGHTS_FILE, Adapter, parse_adapter
from common.types import Digest


class AdapterFolders:
    """Adapters under `root`, each at root/<sha256>/ in PEFT's format."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, version: str) -> Path:
        return self._root / version

    def has(self, version: str) -> bool:
        return (self.path(version) / WEIGHTS_FILE).is_file()

    def names(self) -> list[str]:
        """All digests in the store, sorted."""
        return sorted(p.name for p in self._root.iterdir() if not p.name.startswith(".") and p.is_dir())

    @staticmethod
    def name(weights: bytes) -> Digest:
        """What an adapter with this weights file is called."""
        return digest_bytes(weights)

    def put(
        self,
        adapter: Adapter,
        *,
        base_model: str,
        files: Mapping[str, bytes] | None = None,
        weights: bytes | None = None,
    ) -> Digest:
        """Stores an adapter with further `files` beside it, unless it is there; returns its digest.

        `weights` spares making the adapter's bytes twice. Raises Corrupt when it is there with other bytes: what is
        stored is never overwritten.
        """
        weights = adapter.to_bytes() if weights is None else weights
        digest = self.name(weights)
        if self.has(digest.sha256):
            self.get(digest.sha256)
        else:
            contents = {WEIGHTS_FILE: weights, CONFIG_FILE: adapter.config_json(base_model), **(files or {})}
            self._write(self.path(digest.sha256), contents)
        return digest

    def get(self, version: str) -> Adapter:
        """Raises NotFound, or Corrupt when the bytes do not fit their name or one another."""
        weights = self.read(version, WEIGHTS_FILE)
        found = digest_bytes(weights).sha256
        if found != version:
            # The format check first: it says what is wrong, where a digest only says that something is.
            parse_adapter(weights, self.read(version, CONFIG_FILE), name=version)
            raise Corrupt(
                f"version {version}: {WEIGHTS_FILE} has digest {found}",
                reason="DIGEST_MISMATCH",
                ids={"version": version, "file": WEIGHTS_FILE},
            )
        return parse_adapter(weights, self.read(version, CONFIG_FILE), name=version)

    def stored(self, version: str) -> Adapter:
        """As `get`: here there is no copy beside what is stored."""
        return self.get(version)

    def found_digest(self, version: str) -> Digest:
        """The digest that the stored weights have now. Raises NotFound."""
        return digest_bytes(self.read(version, WEIGHTS_FILE))

    def remove(self, version: str) -> None:
        """Deletes an adapter; it is gone for readers at once. Raises NotFound."""
        grave = Path(tempfile.mkdtemp(dir=self._root, prefix=".removed."))
        try:
            self.path(version).rename(grave / version)
        except FileNotFoundError:
            raise NotFound(f"version {version} is not in the store", ids={"version": version}) from None
        finally:
            shutil.rmtree(grave, ignore_errors=True)

    def read(self, version: str, file: str) -> bytes:
        """One file of an adapter. Raises NotFound, or Corrupt when only the file is missing."""
        try:
            return (self.path(version) / file).read_bytes()
        except FileNotFoundError:
            if not self.path(version).is_dir():
                raise NotFound(f"version {version} is not in the store", ids={"version": version}) from None
            raise Corrupt(
                f"version {version}: {file} is missing",
                reason="ADAPTER_CORRUPT",
                ids={"version": version, "file": file},
            ) from None

    def _write(self, target: Path, contents: Mapping[str, bytes]) -> None:
        temporary = Path(tempfile.mkdtemp(dir=self._root, prefix=f".{target.name}."))
        try:
            for name, data in contents.items():
                with (temporary / name).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            temporary.chmod(0o755)
            sync_folder(temporary)
            # Another process may have stored the same bytes meanwhile: its folder is as good as ours.
            with contextlib.suppress(OSError):
                temporary.rename(target)
            sync_folder(self._root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if not (target / WEIGHTS_FILE).is_file():
            raise Corrupt(f"version {target.name}: could not be stored", ids={"version": target.name})
