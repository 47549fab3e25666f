"""Replaces leaf certificates and authorities of both sides under load. Used by tests and `make boundary`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import grpc

from cli.certificates import Authority
from common.boundary.identities import Role
from common.rpc.channels import ReloadingChannel
from common.rpc.client import open_channel
from common.rpc.limits import CallLimits
from common.tls.credentials import channel_credentials
from common.tls.material import Material, read_material
from common.tls.settings import TlsSettings
from tests.boundary.instant import Rpc, instant_services, rpcs

RELOAD_SECONDS = 0.05
CALLERS = 4
# Also under load: connections grow old and are made again.
LIMITS = CallLimits(calls_per_second=100_000, burst=100_000, connection_seconds=1.0)


@dataclass
class Rotation:
    """`calls` under load while `rotations` sets of files were written; `failed` should be empty."""

    calls: int = 0
    streams: int = 0
    rotations: int = 0
    failed: list[str] = field(default_factory=list)
    call_ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


@dataclass(frozen=True)
class _Files:
    """One side's folder."""

    role: Role
    tls: TlsSettings

    def issue(self, authority: Authority, *, also_trust: tuple[bytes, ...] = ()) -> None:
        authority.issue(self.tls.certificate.parent, self.role, also_trust=also_trust)


async def rotate_under_load(calls: int = 400, rounds: int = 3) -> Rotation:
    """At least `calls` calls, and `rounds` times new leaves, then a new authority, introduced without a gap."""
    found = Rotation()
    with tempfile.TemporaryDirectory() as folder:
        async with instant_services(Path(folder), limits=LIMITS, reload_seconds=RELOAD_SECONDS) as services:
            tls = services.certificate(Role.AUDITOR).model_copy(update={"reload_seconds": RELOAD_SECONDS})
            sides = [_Files(Role.AUDITOR, tls), _Files(Role.STUDENT, services.certificate(Role.STUDENT))]
            first = await asyncio.to_thread(read_material, tls)
            rotated = asyncio.Event()
            async with open_channel(services.targets[Role.STUDENT], tls=tls, expects=Role.STUDENT) as channel:
                load = [asyncio.create_task(_load(channel, found, rotated, calls)) for _ in range(CALLERS)]
                authority = services.authority
                for _ in range(rounds):
                    new = Authority.create(authority.trust_domain)
                    for step in _handover(sides, authority, new):
                        step()
                        found.rotations += 1
                        await _seen(found)
                    authority = new
                rotated.set()
                await asyncio.gather(*load)
                newest = await asyncio.to_thread(read_material, tls)
                await _really_replaced(services.targets[Role.STUDENT], channel, first, newest, found)
    return found


async def _really_replaced(
    target: str, channel: grpc.aio.Channel, first: Material, newest: Material, found: Rotation
) -> None:
    """Calls also succeed where nobody looks at files: what was first must have stopped working, on both sides."""
    status = next(rpc for rpc in rpcs() if rpc.path.endswith("StudentService/GetStatus"))
    shown = await _as(target, status, newest)
    if shown is not grpc.StatusCode.OK:
        found.failed.append(f"the service and who has the newest files do not meet: {shown.name}")
    # Each of these differs from the newest in one thing: what the caller trusts, and what it shows.
    for what, material in (
        ("the service still shows its first certificate", replace(newest, ca=first.ca)),
        (
            "the service still trusts the first authority",
            replace(newest, certificate=first.certificate, key=first.key),
        ),
    ):
        if await _as(target, status, material) is not grpc.StatusCode.UNAVAILABLE:
            found.failed.append(what)
    if not isinstance(channel, ReloadingChannel) or channel.newest().fingerprint != newest.fingerprint:
        found.failed.append("the caller still shows its first certificate")


async def _as(target: str, rpc: Rpc, material: Material) -> grpc.StatusCode:
    """What a caller hears that makes a connection of its own."""
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.default_authority", "student.seal.internal"),
    )
    async with grpc.aio.secure_channel(target, channel_credentials(material), options=options) as channel:
        try:
            await rpc.call(channel)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _handover(sides: list[_Files], old: Authority, new: Authority) -> list[Callable[[], None]]:
    """Steps that write one side's files each. What one leaves is valid for the other side before and after its own."""
    return [
        *(partial(side.issue, old) for side in sides),
        *(partial(side.issue, old, also_trust=(new.pem,)) for side in sides),  # both trust both
        *(partial(side.issue, new, also_trust=(old.pem,)) for side in sides),  # both show the new one
        *(partial(side.issue, new) for side in sides),  # the old one is trusted no more
    ]


async def _seen(found: Rotation) -> None:
    """Until both sides have looked at their files, under load."""
    until = found.calls + 2 * CALLERS
    await asyncio.sleep(3 * RELOAD_SECONDS)
    while found.calls < until:
        found.call_ended.clear()
        await found.call_ended.wait()


async def _load(channel: grpc.aio.Channel, found: Rotation, rotated: asyncio.Event, calls: int) -> None:
    """Calls and streams in turn, without a pause."""
    unary = next(rpc for rpc in rpcs() if rpc.path.endswith("StudentService/GetStatus"))
    stream = next(rpc for rpc in rpcs() if rpc.path.endswith("StudentService/Answer"))
    while not rotated.is_set() or found.calls < calls:
        for rpc in (unary, stream):
            await _call(rpc, channel, found)


async def _call(rpc: Rpc, channel: grpc.aio.Channel, found: Rotation) -> None:
    found.calls += 1
    found.streams += rpc.method.server_streaming
    try:
        await rpc.call(channel)
    except grpc.aio.AioRpcError as error:
        found.failed.append(f"{rpc.path}: {error.code().name}: {error.details()}")
    finally:
        found.call_ended.set()
