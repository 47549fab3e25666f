"""Runs a day and measures it: memory, open files and files of every service, after each run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from common.rpc.client import open_channel
from tests.soak.day import Auditing, Calling, hours
from tests.soak.trend import growth
from tests.support.children import Child

REAL = ("auditor", "teacher", "student")
RUNS_A_DAY = 96
# What a day may add. The auditor keeps in memory what it must answer for without reading the ledger: so much an event.
AUDITOR_BYTES_AN_EVENT = 6_144
PEER_MIB = 8.0
OPEN_FILES = 2.0
MIB = 1 << 20


@dataclass
class Samples:
    """One number a run and service."""

    rss_mib: dict[str, list[float]] = field(default_factory=dict)
    open_files: dict[str, list[float]] = field(default_factory=dict)
    leftovers: list[float] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    ledger_mib: list[float] = field(default_factory=list)

    def take(self, children: dict[str, Child], folder: Path) -> None:
        for name, child in children.items():
            self.rss_mib.setdefault(name, []).append(child.rss_mib())
            self.open_files.setdefault(name, []).append(child.open_files())
        every = [path for path in folder.rglob("*") if path.is_file()]
        kept = [path for path in every if is_stored(path.relative_to(folder))]
        self.leftovers.append(len(every) - len(kept))
        self.stored.append(len(kept))
        self.ledger_mib.append((folder / "ledger.db").stat().st_size / MIB)


def is_stored(path: Path) -> bool:
    """What the peers keep on purpose: versions, edits, and the records of requests. Hidden names are temporary."""
    return path.parts[0] in ("teacher", "student") and not any(part.startswith(".") for part in path.parts)


@dataclass(frozen=True)
class Day:
    """What was measured."""

    runs: int
    promoted: int
    failed: int
    events: int
    samples: Samples

    @property
    def result(self) -> dict[str, object]:
        samples = self.samples
        rss = {name: round(growth(values), 1) for name, values in samples.rss_mib.items()}
        opened = round(max(growth(values) for values in samples.open_files.values()), 1)
        left = round(growth(samples.leftovers), 1)
        allowed = {**dict.fromkeys(rss, PEER_MIB), "auditor": PEER_MIB + self.events * AUDITOR_BYTES_AN_EVENT / MIB}
        return {
            "hours": hours(self.runs),
            "runs": self.runs,
            "promoted": self.promoted,
            "failed": self.failed,
            "ledger_events": self.events,
            "ledger_mib": round(samples.ledger_mib[-1], 1),
            "rss_growth_mib": rss,
            "rss_allowed_mib": {name: round(value, 1) for name, value in allowed.items()},
            "auditor_bytes_an_event": round(rss["auditor"] * MIB / self.events),
            "open_files_growth": opened,
            "files_growth": left,
            "stored_files": samples.stored[-1],
            "flat": all(rss[name] <= allowed[name] for name in rss) and opened <= OPEN_FILES and left <= OPEN_FILES,
        }


async def soak(folder: Path, runs: int, tell: Callable[[int, Samples], None] = lambda *_: None) -> Day:
    """`folder` is there and empty. Each service is a process of its own; the auditor's two peers are scripted."""
    async with AsyncExitStack() as stack:

        async def started(name: str, *arguments: str) -> Child:
            command = ["-m", "tests.fuzz.services", name, str(folder), *arguments]
            child = await Child.start(name, command, folder.with_name(f"{folder.name}-{name}.log"))
            stack.push_async_callback(child.stop)
            return child

        peers = await started("peers")
        targets = (peers.targets["peer-teacher"], peers.targets["peer-student"])
        children = dict(
            zip(
                REAL,
                await asyncio.gather(started("auditor", *targets), started("teacher"), started("student")),
                strict=True,
            )
        )
        channels = {
            name: await stack.enter_async_context(open_channel(child.targets[name])) for name, child in children.items()
        }
        auditing = Auditing(channels["auditor"])
        calling = [Calling(name, channels[name]) for name in ("teacher", "student")]
        samples = Samples()
        for number in range(runs):
            await asyncio.gather(auditing.run(number), *(peer.between_runs() for peer in calling))
            await asyncio.to_thread(samples.take, children, folder)
            tell(number, samples)
        return Day(runs, auditing.promoted, auditing.failed, await auditing.events(), samples)
