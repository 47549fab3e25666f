"""How much faster three student replicas train than one, and what it costs to kill one of them in mid-run.

`make bench-replicas`, or `python -m benchmarks.replicas`. The replicas are processes with the student's own server and
store and a simulated GPU (benchmarks/simulated_student.py); the auditor's own client spreads the candidates over them.
Three orders: to one replica, to three, and to three of which one is killed with SIGKILL when a third of the results is
there, in the middle of its next candidate. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auditor.clients import GrpcStudent
from auditor.config import AuditorConfig, StudentPeer
from auditor.peers import TrainCandidate, TrainOrder
from auditor.spread_student import SpreadStudent
from common.edits import make_edit
from common.prompting import question_and_answer
from common.rpc.client import open_channel
from common.types import Recipe, SelfEdit, TaskKind
from common.versions import TrainedCandidate

ROOT = Path(__file__).resolve().parent.parent
RECIPE = Recipe(rank=4, epochs=1, batch_size=4, learning_rate=1e-2, max_tokens=128)
START_SECONDS = 240.0


@dataclass
class Replica:
    target: str
    process: subprocess.Popen[bytes]


@dataclass
class Fleet:
    """Replicas on one store. `notes`: every training that began, as candidate key and process."""

    replicas: list[Replica]
    notes: Path
    orders: int = 0
    spent: list[str] = field(default_factory=list)

    def trainings(self) -> list[tuple[str, int]]:
        """What has begun since the last order was made."""
        lines = self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []
        return [(key, int(process)) for key, process in map(str.split, lines[len(self.spent) :])]

    def order(self, candidates: int) -> TrainOrder:
        """Candidates that nobody has trained yet."""
        self.orders += 1
        self.spent = self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []
        names = [f"{self.orders}-{place}" for place in range(candidates)]
        edit = some_edit()
        return TrainOrder(
            request_id=f"order-{self.orders}",
            parent_version="base",
            candidates=tuple(
                TrainCandidate(candidate_id=name, edit=edit, seed=1_000 * self.orders + place)
                for place, name in enumerate(names)
            ),
        )


def some_edit() -> SelfEdit:
    example = question_and_answer("The plan", "What is the refund period?", "Thirty days.")
    return make_edit(kind=TaskKind.KNOWLEDGE, document_id="plan", revision="1", examples=[example], recipe=RECIPE)


@asynccontextmanager
async def fleet(folder: Path, count: int, seconds: float) -> AsyncIterator[Fleet]:
    """Starts the replicas and waits until each has loaded its model; ends them."""
    from tests.support.tiny_model import make_tiny_model

    model, notes = make_tiny_model(folder / "model"), folder / "trainings"
    replicas: list[Replica] = []
    try:
        for place in range(count):
            target = f"127.0.0.1:{free_port()}"
            settings = {
                "listen": target,
                "metrics_listen": "",
                "store": folder / "store",
                "model.model": model,
                "model.cache_dir": folder / "cache",
                "model.threads": 1,
                "seconds": seconds,
                "notes": notes,
            }
            words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
            with (folder / f"replica-{place}.log").open("wb") as log:
                command = [sys.executable, "-m", "benchmarks.simulated_student", *words]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)  # noqa: ASYNC220
            replicas.append(Replica(target, process))
        await asyncio.gather(*(ready(replica) for replica in replicas))
        yield Fleet(replicas, notes)
    finally:
        for replica in replicas:
            replica.process.kill()
            replica.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def ready(replica: Replica) -> None:
    async with asyncio.timeout(START_SECONDS), opened([replica]) as student:
        await student.status()


@asynccontextmanager
async def opened(replicas: Sequence[Replica]) -> AsyncIterator[SpreadStudent]:
    """The student as the auditor sees it when these are its replicas."""
    target = "ipv4:" + ",".join(replica.target for replica in replicas)
    config = AuditorConfig(student=StudentPeer(target=target, replicas=0))
    config = config.model_copy(update={"retries": config.retries.model_copy(update={"attempts": 30})})

    async with open_channel(target) as channel:
        anyone = GrpcStudent(channel, config.timeouts, config.retries)
        student = SpreadStudent.open(config, anyone, open_channel)
        try:
            yield student
        finally:
            await student.close()


async def trained(
    fleet: Fleet, replicas: Sequence[Replica], candidates: int, *, kill_after: int = 0, seconds_later: float = 0.0
) -> dict[str, Any]:
    """Has these replicas train candidates. So much later than `kill_after` results the last of them is killed."""
    order, results = fleet.order(candidates), 0
    started = time.monotonic()
    async with opened(replicas) as student:
        async for event in student.train(order, lambda _: None):
            assert isinstance(event, TrainedCandidate), event
            results += 1
            if results == kill_after:
                asyncio.get_running_loop().call_later(seconds_later, replicas[-1].process.kill)
    seconds = time.monotonic() - started
    begun = fleet.trainings()
    names = {replica.process.pid: f"replica {place}" for place, replica in enumerate(fleet.replicas)}
    again = [key for key, times in Counter(key for key, _ in begun).items() if times > 1]
    return {
        "finished": results,
        "seconds": round(seconds, 1),
        "candidates_per_minute": round(60 * results / seconds, 2),
        "trainings_begun": dict(sorted(Counter(names[process] for _, process in begun).items())),
        "begun_twice": len(again),
    }


async def measured(folder: Path, candidates: int, seconds: float, count: int) -> dict[str, Any]:
    """All three orders, one after another."""
    async with fleet(folder, count, seconds) as students:
        replicas = students.replicas
        # What a process does at its first training only is no part of this.
        await asyncio.gather(*(trained(students, [replica], 1) for replica in replicas))
        one = said("one", await trained(students, replicas[:1], candidates))
        several = said("several", await trained(students, replicas, candidates))
        # All have just stored something; half a candidate later each is in the middle of another.
        with_a_death = trained(students, replicas, candidates, kill_after=candidates // 3, seconds_later=seconds / 2)
        killed = said("killed", await with_a_death)
    speed = one["candidates_per_minute"]
    return {
        "candidates": candidates,
        "seconds_per_candidate": seconds,
        "replicas": count,
        "ratio": round(several["candidates_per_minute"] / speed, 3),
        "one": one,
        "several": several,
        "killed": {**killed, "ratio": round(killed["candidates_per_minute"] / speed, 3)},
    }


def said(what: str, result: dict[str, Any]) -> dict[str, Any]:
    print(f"{what}: {json.dumps(result)}", file=sys.stderr, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description="Student replicas on one store.")
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=8.0, help="what the simulated GPU takes for a candidate")
    parser.add_argument("--replicas", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measured(Path(folder), arguments.candidates, arguments.seconds, arguments.replicas))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
