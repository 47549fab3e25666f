"""Sends requests to the servers and judges what comes back.

A request is a finding when its status is INTERNAL or UNKNOWN (nobody foresaw it), when it gets no status within its
deadline twice (a hang), or when a process ends (a crash; it is started again). Every finding is written down with its
bytes, so that it can be sent again. Streams are read for a few messages and then called off.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message

from common.contract.seal.v1 import auditor_pb2, student_pb2, teacher_pb2
from common.rpc.client import open_channel
from tests.fuzz.corpus import Corpus
from tests.fuzz.messages import Maker
from tests.support.children import Child

FILES = {"teacher": teacher_pb2, "student": student_pb2, "auditor": auditor_pb2}
NAME = re.compile(rb"[0-9a-f]{64}")
KEPT_NAMES = 48
KEPT_FINDINGS = 3
WRONG = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
# The channel tries a lost call again: its deadline may come first.
LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
MESSAGES_OF_A_STREAM = 12
# Each reads the whole ledger: in proportion they would be most of the time.
SELDOM = {"VerifyLedger": 0.03}


@dataclass(frozen=True)
class Rpc:
    """One method of the contract."""

    service: str
    name: str
    path: str
    request: type[Message]
    streams: bool


def rpcs_of(services: tuple[str, ...]) -> list[Rpc]:
    """Every RPC of the services, from the contract itself."""
    found = []
    for service in services:
        for described in FILES[service].DESCRIPTOR.services_by_name.values():
            for method in described.methods:
                path = f"/{described.full_name}/{method.name}"
                request = message_factory.GetMessageClass(method.input_type)
                found.append(Rpc(service, method.name, path, request, method.server_streaming))
    return found


@dataclass
class Findings:
    """What was seen so far."""

    folder: Path
    requests: int = 0
    internal: int = 0
    hangs: int = 0
    crashes: int = 0
    slowest: float = 0.0
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    noted: list[str] = field(default_factory=list)

    def note(self, kind: str, rpc: Rpc, data: bytes, detail: str) -> None:
        """Keeps the first findings of each kind and RPC, with their bytes: many of one displace no other."""
        if sum(line.startswith(f"{kind} {rpc.name}:") for line in self.noted) < KEPT_FINDINGS:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / f"{len(self.noted):02}-{kind}-{rpc.name}.bin"
            file.write_bytes(data)
            self.noted.append(f"{kind} {rpc.name}: {detail[:300]} ({file})")

    def result(self) -> dict[str, int]:
        return {
            "requests": self.requests,
            "internal": self.internal,
            "hangs": self.hangs,
            "crashes": self.crashes,
        }


class Target:
    """A service that is started again when it has ended. `targets` are those of all services."""

    def __init__(self, child: Child, again: Callable[[], Awaitable[Child]]) -> None:
        self.child = child
        self._again = again
        self._channel = self._opened()
        self._lock = asyncio.Lock()

    @property
    def channel(self) -> grpc.aio.Channel:
        return self._channel

    async def revived(self, child: Child) -> bool:
        """Whether `child` had ended; a new one stands in its place then. True for one caller a crash."""
        with suppress(TimeoutError):
            await asyncio.wait_for(child.ended(), 0.5)
        async with self._lock:
            if not child.crashed or child is not self.child:
                return False
            await self._channel.close()
            self.child = await self._again()
            self._channel = self._opened()
            return True

    def _opened(self) -> grpc.aio.Channel:
        return open_channel(self.child.targets[self.child.name])


class Fuzzer:
    """Draws, sends, judges. One per run."""

    def __init__(self, targets: dict[str, Target], findings: Findings, *, seed: int, deadline: float) -> None:
        self._targets = targets
        self._findings = findings
        self._deadline = deadline
        self._seed = seed
        self._names: dict[str, deque[str]] = {name: deque(maxlen=KEPT_NAMES) for name in targets}
        self._rpcs = rpcs_of(tuple(targets))
        self._weights = [SELDOM.get(rpc.name, 1.0) for rpc in self._rpcs]

    async def run(self, requests: int, workers: int, tell: Callable[[int], None] = lambda _: None) -> None:
        """Sends so many requests from several workers; each draws from a seed of its own."""
        numbers = iter(range(requests))
        await asyncio.gather(*(self._work(numbers, worker, tell) for worker in range(workers)))

    async def _work(self, numbers: Iterator[int], worker: int, tell: Callable[[int], None]) -> None:
        draw = random.Random(f"{self._seed}/{worker}")
        for number in numbers:
            (rpc,) = draw.choices(self._rpcs, self._weights)
            names = self._names[rpc.service]
            data = made(rpc, draw, names)
            await self._judge(rpc, data, draw)
            self._findings.requests += 1
            tell(number)

    async def _judge(self, rpc: Rpc, data: bytes, draw: random.Random) -> None:
        found, target = self._findings, self._targets[rpc.service]
        for attempt in (1, 2):
            child, started = target.child, time.monotonic()
            code, detail = await self._send(target, rpc, data)
            found.slowest = max(found.slowest, time.monotonic() - started)
            if await self._crashed(target, child, rpc, data, code):
                return
            if code is not grpc.StatusCode.DEADLINE_EXCEEDED or attempt == 2:
                break
        found.codes[rpc.name, code.name] += 1
        if attempt == 2 and code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            found.note(
                "late", rpc, data, f"no status within {self._deadline:g} s at first, {code.name} when sent again"
            )
        if code in WRONG:
            found.internal += 1
            found.note("internal", rpc, data, detail)
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            found.hangs += 1
            found.note("hang", rpc, data, detail)
        elif rpc.name == "StartRun" and code is grpc.StatusCode.OK:
            await self._call_off(target, rpc, data, draw)

    async def _crashed(self, target: Target, child: Child, rpc: Rpc, data: bytes, code: grpc.StatusCode) -> bool:
        """Whether the call was lost with its process. Several calls may be; they are one crash."""
        if code not in LOST or (code is grpc.StatusCode.DEADLINE_EXCEEDED and not child.crashed):
            return False
        if await target.revived(child):
            self._findings.crashes += 1
        if child.crashed:
            # Whichever of the calls that were under way it was.
            self._findings.note("crash", rpc, data, f"{child.name} ended with {await child.ended()}")
        return child.crashed

    async def _send(self, target: Target, rpc: Rpc, data: bytes) -> tuple[grpc.StatusCode, str]:
        """Bytes as they are: what cannot be parsed is sent as well."""
        raw: Any = {"request_serializer": bytes, "response_deserializer": bytes}
        try:
            if rpc.streams:
                call = target.channel.unary_stream(rpc.path, **raw)(data, timeout=self._deadline)
                left = MESSAGES_OF_A_STREAM
                async for message in call:
                    self._learn(rpc, message)
                    left -= 1
                    if not left:
                        call.cancel()
                        break
            else:
                answer = await target.channel.unary_unary(rpc.path, **raw)(data, timeout=self._deadline)
                self._learn(rpc, answer)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        except (grpc.aio.UsageError, asyncio.CancelledError):
            # Another worker's crash closed the channel under this call; or this worker itself is called off.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return grpc.StatusCode.UNAVAILABLE, "the channel was closed"
        return grpc.StatusCode.OK, ""

    def _learn(self, rpc: Rpc, answer: bytes) -> None:
        # The first name of a stream's message is that of what it brings: an edit, a version.
        most = 1 if rpc.streams else 4
        self._names[rpc.service].extend(name.decode() for name in NAME.findall(answer)[:most])

    async def _call_off(self, target: Target, rpc: Rpc, data: bytes, draw: random.Random) -> None:
        """A run that was accepted: left alone for a moment, so that it gets somewhere, and then cancelled."""
        run_id = auditor_pb2.StartRunRequest.FromString(data).run_id
        await asyncio.sleep(draw.choice((0, 0, 0.05, 0.3)))
        cancel = next(one for one in self._rpcs if one.name == "CancelRun")
        code, detail = await self._send(target, cancel, auditor_pb2.CancelRunRequest(run_id=run_id).SerializeToString())
        if code in WRONG:
            self._findings.internal += 1
            self._findings.note("internal", cancel, data, detail)


def made(rpc: Rpc, draw: random.Random, names: deque[str]) -> bytes:
    """One request: valid, valid but for a few places, filled at random, or spoilt byte by byte."""
    maker, corpus = Maker(draw, names), Corpus(draw, names)
    luck = draw.random()
    if luck < 0.30:
        request = rpc.request()
        maker.anything(request)
    else:
        request = corpus.request(rpc.name, rpc.request)
        if luck > 0.45:
            maker.spoilt(request)
    data = request.SerializeToString()
    return maker.bytes_of(data) if luck > 0.88 else data
