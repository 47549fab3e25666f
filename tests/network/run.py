"""A real run between the three real services, each in the namespace of its pod and under that pod's rules alone.

It is ordered with the CLI from the scheduler's pod, asked about from the operator's and the application's, and its
metrics are read from Prometheus's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cli.certificates import Authority
from common.boundary.allow_table import GRPC_PORTS, METRICS_PORTS, Place
from common.boundary.identities import Role
from tests.network.fabric import Fabric
from tests.support.tiny_services import NAMES, ROOT, Models, Start, services_started, settings_of
from tests.support.writing_model import TEXT, TITLE
from tools.manifests.evaluate import Endpoint

# What a tiny random model gains is not asked here: every edit goes all the way.
BOUNDS = {
    "rounds": 1,
    "candidates": 1,
    "threshold": -1.0,
    "racing": False,
    "min_scale": 1.0,
    "max_answer_tokens": 4,
    "retention": {"suites": [], "max_drop": 1.0},
    "health": {"anchors": 0, "max_drift": 0, "max_degenerate": 1.0},
}
TASK = {
    "id": "plan",
    "kind": "knowledge",
    "title": TITLE,
    "context": TEXT,
    "tau": [
        {"id": f"q{number}", "question": f"Within how many days, asked {number} times?", "answers": ["thirty"]}
        for number in range(4)
    ],
}
SECONDS = 240.0
SCRAPE = "import sys, urllib.request; print(len(urllib.request.urlopen(sys.argv[1], timeout=10).read()))"


class NotDone(Exception):
    """A command in a pod failed; says which, where, and its last words."""


async def run(fabric: Fabric, pods: Mapping[str, Endpoint], folder: Path) -> list[dict[str, Any]]:
    """Events of the run. Raises NotDone, and what a service that does not start raises."""
    cluster = _Cluster(fabric, pods, folder, Models.make(folder / "models"))
    async with services_started([cluster.start(name) for name in NAMES]):
        (folder / "plan.yaml").write_text(yaml.safe_dump(TASK))
        events = await cluster.seal(Role.SCHEDULER, "run", str(folder / "plan.yaml"), "--run-id", "one")
        await cluster.seal(Role.OPERATOR, "verify")
        await cluster.seal(Role.APPLICATION, "ask", "How many days?", "--topic", TITLE)
        for place in METRICS_PORTS:
            await cluster.done(
                Place.PROMETHEUS, sys.executable, "-c", SCRAPE, f"http://{cluster.metrics(place)}/metrics"
            )
    return events


@dataclass
class _Cluster:
    """Who is in which pod, with which certificate."""

    fabric: Fabric
    pods: Mapping[str, Endpoint]
    folder: Path
    models: Models
    authority: Authority = field(default_factory=Authority.create)

    def grpc(self, place: Place) -> str:
        return f"{self.pods[place].address}:{GRPC_PORTS[place]}"

    def metrics(self, place: Place) -> str:
        return f"{self.pods[place].address}:{METRICS_PORTS[place]}"

    def start(self, name: str) -> Start:
        own, place = self.folder / name, Place(name)
        self.authority.issue(own / "tls", Role(name))
        settings = settings_of(name, own, self.models, self.grpc(place), self.metrics(place))
        if place is Place.AUDITOR:
            settings |= {str(peer): {"target": self.grpc(peer)} for peer in (Place.TEACHER, Place.STUDENT)}
            settings |= {"settings": BOUNDS}
        return Start(name, own, settings, command=self.fabric.command(self.pods[name]))

    async def seal(self, role: Role, *words: str) -> list[dict[str, Any]]:
        """What the CLI says to somebody of this role, in his pod."""
        own = self.authority.issue(self.folder / "callers" / role, role, "alice" if role is Role.OPERATOR else "")
        options = ("--auditor", self.grpc(Place.AUDITOR), "--tls", str(own), "--json")
        said = await self.done(Place(role), sys.executable, "-m", "cli.main", *words, *options)
        return [json.loads(line) for line in said.splitlines()]

    async def done(self, place: Place, *command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *self.fabric.command(self.pods[place]),
            *command,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, said = await asyncio.wait_for(process.communicate(), SECONDS)
        if process.returncode:
            words = said.decode(errors="replace")[-1_000:]
            raise NotDone(f"{' '.join(command[:6])} in the pod of {place}: exit status {process.returncode}\n{words}")
        return out.decode()
