"""Tries connections between pods, for real: listeners at every port of every pod, and one attempt from every other.

TCP is open when the far end's kernel completes the handshake, UDP when an echo comes back.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from tests.network.fabric import Fabric
from tools.manifests.evaluate import Endpoint

# Of one pod's attempts together; a reset or an answer comes in less than a millisecond.
SECONDS = 3.0
ECHO_SECONDS = 0.5
# Addresses of who tries and who is tried, port, transport.
Attempt = tuple[str, str, int, str]
Pair = tuple[str, int]


@contextmanager
def listening(fabric: Fabric, endpoints: Sequence[Endpoint], ports: Sequence[int]) -> Iterator[None]:
    """Somebody listens at every port of every pod, TCP and UDP, until the block ends."""
    with ExitStack() as stack:
        echoing = stack.enter_context(selectors.DefaultSelector())
        for endpoint in endpoints:
            for made in fabric.inside(endpoint, partial(_listeners, endpoint.address, ports)):
                stack.enter_context(made)
                if made.type is socket.SOCK_DGRAM:
                    echoing.register(made, selectors.EVENT_READ)
        ended = threading.Event()
        echo = threading.Thread(target=_echo, args=(echoing, ended))
        echo.start()
        try:
            yield
        finally:
            ended.set()
            echo.join()


def _listeners(address: str, ports: Iterable[int]) -> list[socket.socket]:
    made = []
    for port in ports:
        # Nobody need accept: the kernel answers for as many as wait in line.
        stream = socket.create_server((address, port), backlog=1_024)
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.bind((address, port))
        datagram.setblocking(False)
        made += [stream, datagram]
    return made


def _echo(selector: selectors.BaseSelector, ended: threading.Event) -> None:
    while not ended.is_set():
        for key, _ in selector.select(0.2):
            listener = key.fileobj
            assert isinstance(listener, socket.socket)
            try:
                data, sender = listener.recvfrom(64)
                listener.sendto(data, sender)
            except OSError:  # the answer may be what is not let out
                continue


def opened(
    fabric: Fabric, sources: Sequence[Endpoint], endpoints: Sequence[Endpoint], ports: Sequence[int]
) -> set[Attempt]:
    """Every attempt of the sources that came through, of all pairs of which policies are about one."""
    found: set[Attempt] = set()
    with ExitStack() as stack:
        datagrams: list[tuple[Endpoint, socket.socket, list[Pair]]] = []
        for source in sources:
            targets = [t for t in endpoints if t is not source and (source.governed or t.governed)]
            pairs = [(target.address, port) for target in targets for port in ports]
            through = fabric.inside(source, partial(_streams, pairs))
            found |= {(source.address, *pair, "TCP") for pair in through}
            sender = fabric.inside(source, partial(socket.socket, socket.AF_INET, socket.SOCK_DGRAM))
            datagrams.append((source, stack.enter_context(sender), pairs))
        for source, pair in _echoed(datagrams):
            found.add((source.address, *pair, "UDP"))
    return found


def _streams(pairs: Iterable[Pair]) -> set[Pair]:
    through: set[Pair] = set()
    with ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        for pair in pairs:
            tried = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            tried.setblocking(False)
            if tried.connect_ex(pair) == errno.EINPROGRESS:
                waiting.register(tried, selectors.EVENT_WRITE, pair)
        deadline = time.monotonic() + SECONDS
        while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    through.add(key.data)
                waiting.unregister(key.fileobj)
    return through


def _echoed(senders: Sequence[tuple[Endpoint, socket.socket, list[Pair]]]) -> Iterator[tuple[Endpoint, Pair]]:
    """Twice to each: a datagram may be lost on a busy machine."""
    for _ in range(2):
        for _, sender, pairs in senders:
            sender.setblocking(False)
            for pair in pairs:
                try:
                    sender.sendto(b"?", pair)
                except OSError:  # refused on the way out
                    continue
        time.sleep(ECHO_SECONDS)  # what is closed stays silent, so there is nothing to wait for
        for source, sender, _ in senders:
            try:
                while True:
                    address, port = sender.recvfrom(64)[1]
                    yield source, (address, port)
            except BlockingIOError:
                continue
