"""Where the programs of iproute2 and nftables are: on the PATH, or else fetched from Debian without installing."""

from __future__ import annotations

import os
import shutil

from tools.debian import program, unpacked

# Package, its program, and the packages of the libraries which that needs beyond the C library.
PROGRAMS = (
    ("iproute2", "ip", ("libbpf1", "libelf1", "libmnl0", "libbsd0", "libmd0", "libcap2", "libxtables12")),
    (
        "nftables",
        "nft",
        ("libnftables1", "libnftnl11", "libmnl0", "libjansson4", "libxtables12", "libedit2", "libbsd0"),
    ),
)
SYSTEM = ("/usr/sbin", "/sbin")
LIBRARIES = ("lib/*-linux-gnu", "usr/lib/*-linux-gnu")


def environment() -> dict[str, str]:
    """The caller's, with both programs on the PATH. Raises NotToBeHad, which says what to do."""
    os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM))
    found = {**os.environ}
    for package, name, libraries in PROGRAMS:
        if shutil.which(name) is None:
            folders = [str(path) for library in libraries for at in LIBRARIES for path in unpacked(library).glob(at)]
            _before(found, "PATH", [str(program(package, name).parent)])
            _before(found, "LD_LIBRARY_PATH", folders)
    return found


def _before(found: dict[str, str], variable: str, folders: list[str]) -> None:
    found[variable] = os.pathsep.join([*folders, *filter(None, [found.get(variable)])])
