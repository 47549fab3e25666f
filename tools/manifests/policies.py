"""Writes the NetworkPolicies of deploy/k8s from the allow table: `python -m tools.manifests.policies`.

Every namespace of the project refuses everything both ways. Each edge then has two policies: one where it starts, one
where it ends, as far as the end is in a namespace of the project. Edges of a component stand in its folder.
A test fails when the files are stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from common.boundary.allow_table import Address, Edge, Place, edges
from tools.manifests.places import NAMESPACES, OWNED, PLACEMENTS

ROOT = Path(__file__).parents[2] / "deploy" / "k8s"
HEADER = "# Written by `python -m tools.manifests.policies` from common/boundary/allow_table.py. Change that.\n"
Manifest = dict[str, Any]


def files() -> dict[Path, str]:
    """What every generated file must hold, by its path under deploy/k8s."""
    components = sorted({edge.component for edge in edges()})
    return {_path(component): HEADER + _text(policies(component)) for component in components}


def policies(component: str) -> list[Manifest]:
    """The policies of a component; of the base, with the refusal of everything else, where it is empty."""
    refusals = [] if component else [_refusal(namespace) for namespace in OWNED]
    grouped: dict[tuple[Place, Place], list[Edge]] = {}
    for edge in edges():
        if edge.component == component:
            grouped.setdefault((edge.source, edge.target), []).append(edge)
    return refusals + [policy for pair in sorted(grouped) for policy in _both_ends(*pair, grouped[pair])]


def _path(component: str) -> Path:
    return Path("components", component, "network-policies.yaml") if component else Path("base/network-policies.yaml")


def _text(manifests: Iterable[Manifest]) -> str:
    return yaml.safe_dump_all(manifests, sort_keys=False, width=120)


def _refusal(namespace: str) -> Manifest:
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return _policy("refuse-everything", namespace, "What no other policy allows.", spec)


def _both_ends(source: Place, target: Place, group: list[Edge]) -> list[Manifest]:
    why = "; ".join(dict.fromkeys(edge.why for edge in group))
    found = []
    if source in NAMESPACES:
        peer = _cidr(target) if group[0].address is Address.CIDR else _pods(target)
        spec = _spec(source, "Egress", {"to": [peer], "ports": _ports(group)})
        found.append(_policy(f"{source}-to-{target}", NAMESPACES[source], why, spec))
    if target in NAMESPACES:
        spec = _spec(target, "Ingress", {"from": [_pods(source)], "ports": _ports(group)})
        found.append(_policy(f"{target}-from-{source}", NAMESPACES[target], why, spec))
    return found


def _spec(place: Place, direction: str, rule: Manifest) -> Manifest:
    selector = {"matchLabels": dict(PLACEMENTS[place].pods)}
    return {"podSelector": selector, "policyTypes": [direction], direction.lower(): [rule]}


def _pods(place: Place) -> Manifest:
    """One peer with both selectors: two peers would mean either, so every pod of the namespace."""
    placement = PLACEMENTS[place]
    return {
        "namespaceSelector": {"matchLabels": dict(placement.namespace)},
        "podSelector": {"matchLabels": dict(placement.pods)},
    }


def _ports(group: Iterable[Edge]) -> list[Manifest]:
    return [{"port": edge.port, "protocol": str(edge.transport)} for edge in group]


def _cidr(place: Place) -> Manifest:
    return {"ipBlock": {"cidr": PLACEMENTS[place].cidr}}


def _policy(name: str, namespace: str, why: str, spec: Mapping[str, Any]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "annotations": {"kubernetes.io/description": why}},
        "spec": dict(spec),
    }


def main() -> None:
    for path, text in files().items():
        target = ROOT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        sys.stdout.write(f"deploy/k8s/{path}\n")


if __name__ == "__main__":
    main()
