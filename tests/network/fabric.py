"""One network namespace a pod, and a router between them in a namespace of its own, which lets everything through.

Runs inside the namespaces that tests/network/__main__.py enters first: nothing here touches the machine's own network,
and all of it is gone with the last process, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tools.manifests.evaluate import Endpoint

CLONE_NEWNET = 0x40000000
NAMED = Path("/run/netns")
FABRIC, ROUTER = "fabric", "169.254.1.1"
T = TypeVar("T")


class Fabric:
    """`add` lays a pod on; `inside` does something in its namespace, `command` prefixes what is to run there."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1)
        self._count = 0
        _ip(f"netns add {FABRIC}")
        self._within(FABRIC, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))

    def add(self, endpoints: Sequence[Endpoint]) -> None:
        """Each has an address alone and one neighbour, the router: a thousand pairs of neighbours overflow a table."""
        for endpoint in endpoints:
            self._count += 1
            name, port = name_of(endpoint), f"p{self._count}"
            _ip(f"netns add {name}")
            _ip(
                f"link add {port} type veth peer name eth0 netns {name}",
                f"link set {port} up",
                f"address add {ROUTER}/32 dev {port}",
                f"route add {endpoint.address}/32 dev {port}",
                namespace=FABRIC,
            )
            _ip(
                f"address add {endpoint.address}/32 dev eth0",
                "link set lo up",
                "link set eth0 up",
                f"route add {ROUTER} dev eth0 scope link",
                f"route add default via {ROUTER}",
                namespace=name,
            )

    def inside(self, endpoint: Endpoint, work: Callable[[], T]) -> T:
        """Sockets made there stay there."""
        return self._within(name_of(endpoint), work)

    def _within(self, name: str, work: Callable[[], T]) -> T:
        """On a thread, which has a network namespace of its own."""

        def entered() -> T:
            with (NAMED / name).open() as there:
                if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
            return work()

        return self._threads.submit(entered).result()

    def filter(self, endpoint: Endpoint, rules: str) -> None:
        """Puts nftables' rules in place of those that the pod had."""
        command = [*self.command(endpoint), "nft", "-f", "-"]
        subprocess.run(command, input=f"flush ruleset\n{rules}", text=True, check=True)

    @staticmethod
    def command(endpoint: Endpoint) -> list[str]:
        return ["ip", "netns", "exec", name_of(endpoint)]


def name_of(endpoint: Endpoint) -> str:
    return f"pod-{endpoint.address}"


def _ip(*commands: str, namespace: str = "") -> None:
    """iproute2's commands, all in one process."""
    there = ("-n", namespace) if namespace else ()
    subprocess.run(["ip", *there, "-batch", "-"], input="\n".join(commands), text=True, check=True)
