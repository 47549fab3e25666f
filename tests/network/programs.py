"""Where the programs of iproute2 and nftables are: on the PATH, or else fetched from Debian without installing."""

from __future__ import annotations

import os

from tools.debian import program

PROGRAMS = (("iproute2", "ip"), ("nftables", "nft"))
SYSTEM = ("/usr/sbin", "/sbin")


def search_path() -> str:
    """A PATH that has them. Raises NotToBeHad, which says what to do."""
    found = os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM))
    folders = dict.fromkeys(str(program(package, name).parent) for package, name in PROGRAMS)
    return os.pathsep.join((*folders, found))
