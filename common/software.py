"""What this process runs, for the record."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from common.types import Software


def software(packages: Sequence[str], *, device: str = "cpu", threads: int = 0, precision: str = "") -> Software:
    """Versions of Python and of those `packages` that are installed."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Software(versions=versions, device=device, threads=threads, precision=precision)
