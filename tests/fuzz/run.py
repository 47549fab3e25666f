"""Starts the services in a folder, fuzzes them, and ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.driver import Findings, Fuzzer, Target
from tests.support.children import Child

SERVICES = ("teacher", "student", "auditor")
DEADLINE_SECONDS = 30.0
WORKERS = 8


@dataclass(frozen=True)
class Outcome:
    """What was found, and what each process holds at the end more than at the start, in MiB."""

    findings: Findings
    growth_mib: dict[str, float]


async def fuzz(
    folder: Path,
    requests: int,
    *,
    seed: int = 0,
    services: tuple[str, ...] = SERVICES,
    deadline: float = DEADLINE_SECONDS,
    workers: int = WORKERS,
    tell: Callable[[int], None] = lambda _: None,
    stand_ins: dict[str, str] | None = None,
) -> Outcome:
    """Works in `folder`, which is there; `workers` send side by side. `stand_ins` names other children for services:
    the planted offenders."""
    async with AsyncExitStack() as stack:
        peers: tuple[str, ...] = ()
        if "auditor" in services:
            scripted = await _start("peers", "peers", folder)
            stack.push_async_callback(scripted.stop)
            peers = (scripted.targets["peer-teacher"], scripted.targets["peer-student"])
        targets: dict[str, Target] = {}

        def starter(name: str) -> Callable[[], asyncio.Future[Child]]:
            arguments = peers if name == "auditor" else ()
            child = (stand_ins or {}).get(name, name)
            return lambda: asyncio.ensure_future(_start(name, child, folder, *arguments))

        started = await asyncio.gather(*(starter(name)() for name in services))
        for name, child in zip(services, started, strict=True):
            targets[name] = Target(child, starter(name))
            stack.push_async_callback(_end, targets[name])
        before = {name: target.child.rss_mib() for name, target in targets.items()}
        findings = Findings(folder / "findings")
        await Fuzzer(targets, findings, seed=seed, deadline=deadline).run(requests, workers, tell)
        growth = {name: round(target.child.rss_mib() - before[name], 1) for name, target in targets.items()}
    return Outcome(findings, growth)


async def _start(name: str, child: str, folder: Path, *arguments: str) -> Child:
    return await Child.start(
        name, ["-m", "tests.fuzz.services", child, str(folder), *arguments], folder / f"{name}.log"
    )


async def _end(target: Target) -> None:
    await target.channel.close()
    await target.child.stop()
