"""The replicas behind one name: an address and a channel each, so that a caller can say which of them does what.

gRPC's round robin picks an address a call, which leaves some idle where calls are few and long. Names are resolved
again as time goes by: replicas come and go. Whoever opens the channels says whose certificates they accept.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from grpc import aio

from common.errors import Unavailable

LITERALS = ("ipv4:", "ipv6:")
DNS = "dns:///"


@dataclass(eq=False)
class Replica:
    """One address. `in_flight`: calls that this process has open there."""

    address: str
    channel: aio.Channel
    in_flight: int = 0
    resting_until: float = 0.0

    @property
    def rest_left(self) -> float:
        """Seconds; 0 when nothing says that it is away."""
        return max(0.0, self.resting_until - time.monotonic())

    def rest(self, seconds: float) -> None:
        """Others are asked first for so long."""
        self.resting_until = time.monotonic() + seconds


class Replicas:
    """`open_address` opens a channel to one address, given as a target."""

    def __init__(
        self, target: str, open_address: Callable[[str], aio.Channel], *, refresh_seconds: float = 5.0
    ) -> None:
        self._target = target
        self._open = open_address
        self._refresh_seconds = refresh_seconds
        self._found: dict[str, Replica] = {}
        self._leaving: list[Replica] = []
        self._due = 0.0
        self._resolving = asyncio.Lock()

    async def known(self) -> list[Replica]:
        """All replicas of now, in the order of their addresses. Raises Unavailable when the name has none."""
        if not self._found or time.monotonic() >= self._due:
            # Who comes first asks; the others wait for that only while nothing is known.
            async with self._resolving:
                if time.monotonic() >= self._due:
                    self._due = time.monotonic() + self._refresh_seconds
                    await self._resolve()
        if not self._found:
            raise Unavailable(f"{self._target} has no address now")
        return [self._found[address] for address in sorted(self._found)]

    async def close(self) -> None:
        for replica in [*self._found.values(), *self._leaving]:
            await replica.channel.close()
        self._found.clear()
        self._leaving.clear()

    async def _resolve(self) -> None:
        addresses = await addresses_of(self._target)
        if not addresses:
            # A name server that is away takes no replica away: those that are gone say so themselves.
            return
        for address in addresses - self._found.keys():
            self._found[address] = Replica(address, self._open(address))
        self._leaving += [self._found.pop(address) for address in self._found.keys() - addresses]
        idle = [replica for replica in self._leaving if not replica.in_flight]
        self._leaving = [replica for replica in self._leaving if replica.in_flight]
        for replica in idle:
            await replica.channel.close()


async def addresses_of(target: str) -> set[str]:
    """Every address of `dns:///name:port`, `name:port` or `ipv4:a:port,b:port`, as a target; none if there is none now.

    Of a name with addresses of both families only IPv4's are taken: they are the same replicas twice.
    """
    for scheme in LITERALS:
        if target.startswith(scheme):
            return {scheme + address for address in target.removeprefix(scheme).split(",")}
    host, _, port = target.removeprefix(DNS).rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    v4 = {f"ipv4:{address[0]}:{port}" for family, *_, address in found if family == socket.AF_INET}
    return v4 or {f"ipv6:[{address[0]}]:{port}" for family, *_, address in found if family == socket.AF_INET6}
