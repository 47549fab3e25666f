"""`make network`: what the NetworkPolicies open, as a kernel enforces them, and a real run under them.

Needs root (or user namespaces), iproute2 and nftables. It first enters namespaces of its own (network, mounts,
processes), so it touches nothing of the machine's network, and whatever it made is gone when it ends or is killed.
The last line is JSON; the exit status is 0 if it says what it should.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from common.boundary.allow_table import edges
from tests.network.fabric import NAMED, Fabric
from tests.network.firewall import rules_of
from tests.network.probes import Attempt, listening, opened
from tests.network.programs import environment
from tests.network.run import NotDone, run
from tools.manifests import kustomize
from tools.manifests.evaluate import PORTS, Endpoint, Manifest, endpoints

INSIDE = "--inside"
SHUT_IN = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
# A rule that nobody should have written: students may reach the auditor.
PLANTED = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: planted, namespace: seal-{place}}}
spec:
  podSelector: {{}}
  policyTypes: [{direction}]
  {key}: [{{{side}: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: seal-{other}}}}}}}]}}]
"""


@dataclass
class Found:
    """`edges`: connections that may be opened; `forbidden`: attempts at all others."""

    edges: int = 0
    forbidden: int = 0
    forbidden_open: int = 0
    allowed_closed: int = 0
    planted_open_found: bool = False
    run: str = "not begun"

    @property
    def good(self) -> bool:
        return not (self.forbidden_open or self.allowed_closed) and self.planted_open_found and self.run == "finished"


class Network:
    """All pods, each under the rules that the manifests have for it."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests
        self.pods = endpoints(manifests)
        self.fabric = Fabric()
        self.fabric.add(self.pods)
        self._enforced: dict[str, str] = {}

    def enforce(self, manifests: list[Manifest]) -> None:
        for pod in self.pods:
            rules = rules_of(pod, self.pods, manifests)
            if rules != self._enforced.get(pod.address, ""):
                self.fabric.filter(pod, rules)
                self._enforced[pod.address] = rules

    def wanted(self) -> set[Attempt]:
        """Every connection that the allow table opens, between any two pods of those places."""
        at: dict[str, list[Endpoint]] = {}
        for pod in self.pods:
            at.setdefault(pod.place, []).append(pod)
        return {
            (source.address, target.address, edge.port, str(edge.transport))
            for edge in edges()
            for source in at[edge.source]
            for target in at[edge.target]
        }

    def tried(self) -> int:
        """Attempts of one round: every pair that policies are about, every port, TCP and UDP."""
        pairs = sum(a is not b and (a.governed or b.governed) for a in self.pods for b in self.pods)
        return pairs * len(PORTS) * 2

    def name(self, attempt: Attempt) -> str:
        at = {pod.address: pod.place for pod in self.pods}
        source, target, port, transport = attempt
        return f"{at[source]} -> {at[target]} {transport} {port}"


def look(network: Network, found: Found) -> None:
    """Compares what is open with what should be, with the manifests as they are and with a hole in them."""
    wanted = network.wanted()
    with listening(network.fabric, network.pods, PORTS):
        network.enforce(network.manifests)
        got = opened(network.fabric, network.pods, network.pods, PORTS)
        network.enforce([*network.manifests, *planted()])
        students = [pod for pod in network.pods if pod.place == "student"]
        holed = opened(network.fabric, students, network.pods, PORTS)
    network.enforce(network.manifests)
    for wrong, words in ((got - wanted, "open, and forbidden"), (wanted - got, "closed, and allowed")):
        for attempt in sorted(wrong)[:20]:
            print(f"{words}: {network.name(attempt)}", flush=True)
    found.edges, found.forbidden = len(wanted), network.tried() - len(wanted)
    found.forbidden_open, found.allowed_closed = len(got - wanted), len(wanted - got)
    through = {network.name(attempt) for attempt in holed - wanted}
    found.planted_open_found = any(name.startswith("student -> auditor ") for name in through)


def planted() -> list[Manifest]:
    out = {"place": "student", "direction": "Egress", "key": "egress", "side": "to", "other": "auditor"}
    into = {"place": "auditor", "direction": "Ingress", "key": "ingress", "side": "from", "other": "student"}
    return [yaml.safe_load(PLANTED.format(**side)) for side in (out, into)]


def everything(folder: Path) -> list[Manifest]:
    """The production overlay with every component that opens something."""
    taken = kustomize.components("production")
    missing = sorted({edge.component for edge in edges()} - taken - {""})
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(kustomize.ROOT / "overlays" / "production", folder)],
        "components": [os.path.relpath(kustomize.ROOT / "components" / name, folder) for name in missing],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return kustomize.rendered_folder(folder)


def inside() -> Found:
    """All of it, in namespaces of its own."""
    NAMED.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(NAMED)], check=True)
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        network = Network(everything(folder))
        print(f"{len(network.pods)} pods, {network.tried()} attempts", flush=True)
        look(network, found)
        pods = {pod.place: pod for pod in reversed(network.pods)}
        try:
            events = asyncio.run(run(network.fabric, pods, folder / "run"))
        except (NotDone, RuntimeError) as error:
            print(error, flush=True)
            found.run = "failed"
        else:
            found.run = str(events[-1]["type"]).removeprefix("run_") if events else "without events"
    return found


def main() -> NoReturn:
    if INSIDE not in sys.argv:
        shut_in()
    found = inside()
    print(json.dumps(asdict(found)))
    sys.exit(0 if found.good else 1)


def shut_in() -> NoReturn:
    """Goes on in namespaces, in this process's place: whoever kills it kills all that is inside."""
    more = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = [*SHUT_IN, *more, sys.executable, "-m", "tests.network", INSIDE]
    os.execvpe(command[0], command, environment())


if __name__ == "__main__":
    main()
