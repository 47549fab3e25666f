"""Finished steps of a long benchmark on disk: what stands there is not done again.

A folder belongs to one choice of settings, named by their digest; with others it is refused, so that figures of two
settings never mix. Files appear whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from common.canonical import canonical_json, digest_of
from common.errors import InvalidConfig
from common.files import write_atomically
from common.types import Domain

DomainT = TypeVar("DomainT", bound=Domain)


class Steps:
    """The steps of one arm in `folder`."""

    def __init__(self, folder: Path, settings: object) -> None:
        """Raises InvalidConfig when the folder holds steps of other settings."""
        self.folder = folder
        named = digest_of(settings).sha256
        file = folder / "settings.json"
        if file.exists():
            if json.loads(file.read_text(encoding="utf-8"))["sha256"] != named:
                raise InvalidConfig(f"{folder} holds steps of other settings: remove it, or choose another folder")
            return
        write_atomically(file, canonical_json({"sha256": named, "settings": settings}))

    def done(self, name: str, form: type[DomainT]) -> DomainT | None:
        """The step as it was finished, or None."""
        file = self.folder / f"{name}.json"
        return form.model_validate_json(file.read_bytes()) if file.exists() else None

    def keep(self, name: str, step: Domain) -> None:
        write_atomically(self.folder / f"{name}.json", canonical_json(step))

    def once(self, name: str, form: type[DomainT], work: Callable[[], DomainT]) -> DomainT:
        """The finished step, or what `work` makes of it now."""
        found = self.done(name, form)
        if found is None:
            found = work()
            self.keep(name, found)
        return found
