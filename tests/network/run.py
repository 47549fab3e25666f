"""A real run between the three real services, each in the namespace of its pod and under that pod's rules alone.

It is ordered with the CLI from the scheduler's pod, asked about from the operator's and the application's, and its
metrics are read from Prometheus's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
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
    authority = Authority.create()
    models = Models.make(folder / "models")
    callers = {role: authority.issue(folder / "callers" / role, role) for role in Role if role not in NAMES}
    async with services_started([_start(name, fabric, pods, folder, models, authority) for name in NAMES]):
        (folder / "plan.yaml").write_text(yaml.safe_dump(TASK))
        seal = (sys.executable, "-m", "cli.main")
        auditor = ("--auditor", _at(pods, Place.AUDITOR, GRPC_PORTS))

        async def told(role: Role, *words: str) -> list[dict[str, Any]]:
            said = await _done(fabric, pods[role], [*seal, *words, *auditor, "--tls", str(callers[role]), "--json"])
            return [json.loads(line) for line in said.splitlines()]

        events = await told(Role.SCHEDULER, "run", str(folder / "plan.yaml"), "--run-id", "one")
        await told(Role.OPERATOR, "verify")
        await told(Role.APPLICATION, "ask", "How many days?", "--topic", TITLE)
        for place in METRICS_PORTS:
            url = f"http://{_at(pods, place, METRICS_PORTS)}/metrics"
            await _done(fabric, pods[Place.PROMETHEUS], [sys.executable, "-c", SCRAPE, url])
    return events


def _at(pods: Mapping[str, Endpoint], place: Place, ports: Mapping[Place, int]) -> str:
    return f"{pods[place].address}:{ports[place]}"


def _start(
    name: str, fabric: Fabric, pods: Mapping[str, Endpoint], folder: Path, models: Models, authority: Authority
) -> Start:
    own, place = folder / name, Place(name)
    authority.issue(own / "tls", Role(name))
    settings = settings_of(name, own, models, _at(pods, place, GRPC_PORTS), _at(pods, place, METRICS_PORTS))
    if place is Place.AUDITOR:
        peers = (Place.TEACHER, Place.STUDENT)
        settings |= {str(peer): {"target": _at(pods, peer, GRPC_PORTS)} for peer in peers}
        settings |= {"settings": BOUNDS}
    return Start(name, own, settings, command=fabric.command(pods[name]))


async def _done(fabric: Fabric, pod: Endpoint, command: Sequence[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *fabric.command(pod), *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, said = await asyncio.wait_for(process.communicate(), SECONDS)
    if process.returncode:
        words = said.decode(errors="replace")[-1_000:]
        raise NotDone(f"{' '.join(command[:6])} in the pod of {pod.place}: exit status {process.returncode}\n{words}")
    return out.decode()
