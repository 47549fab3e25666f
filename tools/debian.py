"""Programs of Debian packages, fetched without root and kept in the model cache: Prometheus for the tests of its rules.

A program on the PATH is taken as it is. Otherwise the package is downloaded by the system's own apt, with its keys
and mirrors, and unpacked into $SEAL_CACHE/debian/PACKAGE; nothing is installed. Tests that need it fail without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from common.errors import SealError
from common.models.config import default_cache_dir

FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")


class NotToBeHad(SealError):
    """A program that is neither here nor can be fetched."""


def program(package: str, name: str) -> Path:
    """The path of program `name` of a Debian package. Raises NotToBeHad, which says what to do."""
    if (found := shutil.which(name)) is not None:
        return Path(found)
    folder = unpacked(package)
    for place in FOLDERS:
        if (path := folder / place / name).is_file():
            return path
    raise NotToBeHad(f"Debian's package {package} has no program {name} ({folder})")


def unpacked(package: str) -> Path:
    """The folder with a package's files, fetched if it must be. Raises NotToBeHad."""
    root = default_cache_dir() / "debian"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{package}.lock"):
        folder = root / package
        if not folder.exists():
            _fetch(package, folder)
    return folder


def _fetch(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{package}-") as made:
        where = Path(made)
        if not _run(["apt-get", "download", package], where, package, may_fail=True):
            # Without lists of packages, or with outdated ones: into lists of its own, which needs no root.
            own = _own_lists(where)
            _run(["apt-get", *own, "update"], where, package)
            _run(["apt-get", *own, "download", package], where, package)
        (archive,) = where.glob(f"{package}_*.deb")
        _run(["dpkg-deb", "-x", archive.name, "unpacked"], where, package)
        (where / "unpacked").rename(folder)


def _own_lists(where: Path) -> list[str]:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (where / name).mkdir(parents=True)
    options = {
        "Dir::State": where / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": where / "cache",
        "APT::Sandbox::User": "",
    }
    return [part for key, value in options.items() for part in ("-o", f"{key}={value}")]


def _run(command: list[str], where: Path, package: str, *, may_fail: bool = False) -> bool:
    advice = f"install the package {package} by other means, or put its programs on the PATH"
    try:
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotToBeHad(f"{command[0]} is not here, this is no Debian or Ubuntu: {advice}") from None
    if done.returncode and not may_fail:
        raise NotToBeHad(f"{' '.join(command)} failed; {advice}:\n{done.stderr.strip()}")
    return done.returncode == 0


if __name__ == "__main__":
    try:
        print(program(*sys.argv[1:3]))
    except NotToBeHad as error:
        sys.exit(error.message)
