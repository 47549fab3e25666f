"""Addresses of this machine: reading them, finding free ones, and seeing whether one is taken."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Self

from cli.failure import BadInput, Failure


@dataclass(frozen=True)
class Address:
    """Where a service listens. `key` is the setting it came from."""

    key: str
    host: str
    port: int

    @classmethod
    def parse(cls, key: str, text: object) -> Self:
        """Raises BadInput that names the setting."""
        host, separator, port = str(text).rpartition(":")
        if not separator or not host or not port.isdigit() or not 0 < int(port) < 65_536:
            raise BadInput(f"{key}: {text} is no HOST:PORT with a port of 1..65535")
        return cls(key, host, int(port))

    @property
    def dialled(self) -> str:
        """host:port as a client on this machine dials it: a wildcard address cannot be dialled."""
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(self.host, self.host)  # noqa: S104 - read, not bound
        return f"{host}:{self.port}"

    def check_free(self) -> None:
        """Raises Failure if somebody listens there already."""
        family = socket.AF_INET6 if self.host.startswith("[") else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host.strip("[]"), self.port))
            except OSError as error:
                what = f"{self.key}: cannot listen at {self.host}:{self.port}: {error.strerror}"
                next_step = f"Stop what listens there, use --free-ports, or choose another with --set {self.key}=..."
                raise Failure(what, next_step, reason="PORT_IN_USE") from None


def free_port() -> int:
    """A port of the loopback interface that nobody listens at."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
