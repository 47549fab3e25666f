"""Says which connections NetworkPolicies open, as Kubernetes defines them, without a cluster.

Between all places of the allow table and strangers (pods of other names in the same namespaces, pods of the same names
elsewhere, addresses outside), over all ports of the table, some that are not in it, and both ends of whatever ports a
policy names: between those nothing changes. Called by `make manifests`, the
tests, and whoever needs the rules in another form.

What it does not know: health probes, which kubelets make whatever policies say, and what a network plugin adds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.boundary import allow_table
from common.boundary.allow_table import Place
from tools.manifests.places import NAMESPACE_NAME, NAMESPACES, OWNED, PLACEMENTS, POD_NAME

Manifest = dict[str, Any]
Connection = tuple[str, str, int, str]
TRANSPORTS = ("TCP", "UDP", "SCTP")
FOREIGN_PORTS = (1, 22, 80, 2379, 6443, 8080, 10250, 65535)
PORTS = tuple(
    sorted(
        {edge.port for edge in allow_table.edges()}
        | set(allow_table.HEALTH_PORTS.values())
        | set(allow_table.METRICS_PORTS.values())
        | set(FOREIGN_PORTS)
    )
)


@dataclass(frozen=True)
class Endpoint:
    """Something with an address. `namespace` is empty for what is no pod: no policy is about its own traffic."""

    place: str
    address: str
    namespace: str = ""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    named_ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def governed(self) -> bool:
        return self.namespace in OWNED


def open_edges(manifests: Sequence[Manifest]) -> set[Connection]:
    """Every (source, target, port, transport) that is open between at least one pair of pods of these places."""
    return {connection for connection, opened in _verdicts(manifests) if opened}


def closed_edges(manifests: Sequence[Manifest]) -> set[Connection]:
    """Every one that is closed between at least one pair: of an allowed edge every pair must be open."""
    return {connection for connection, opened in _verdicts(manifests) if not opened}


def _verdicts(manifests: Sequence[Manifest]) -> Iterator[tuple[Connection, bool]]:
    policies = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    found = endpoints(manifests)
    probes = [(port, transport) for port in _ports(policies, found) for transport in TRANSPORTS]
    into = [rules_about(policies, endpoint, "Ingress") for endpoint in found]
    for source in found:
        out = rules_about(policies, source, "Egress")
        for target, there in zip(found, into, strict=True):
            if not (source.governed or target.governed):
                continue
            sides = [_matching(rules, peer) for rules, peer in ((out, target), (there, source)) if rules is not None]
            possible = all(sides)  # a side without a rule about the other opens nothing
            for port, transport in probes:
                opened = possible and all(any(_fits(rule, target, port, transport) for rule in side) for side in sides)
                yield (source.place, target.place, port, transport), opened


def _ports(policies: Iterable[Manifest], found: Iterable[Endpoint]) -> list[int]:
    """PORTS, and where any rule or any pod's named port begins, ends, and is over."""
    ranges = {(port, port) for endpoint in found for port in endpoint.named_ports.values()}
    for policy in policies:
        for rule in (*(policy["spec"].get("ingress") or ()), *(policy["spec"].get("egress") or ())):
            for entry in rule.get("ports") or ():
                if isinstance(first := entry.get("port"), int):
                    ranges.add((first, int(entry.get("endPort", first))))
    edges_of = {port for first, last in ranges for port in (first - 1, first, last, last + 1)}
    return sorted({*PORTS, *(port for port in edges_of if 0 < port < 65_536)})


def rules_about(policies: Iterable[Manifest], pod: Endpoint, direction: str) -> list[tuple[str, Manifest]] | None:
    """Rules about a pod, each with the namespace of its policy; None where no policy is, so everything is open."""
    if not pod.namespace:
        return None
    about = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and direction in _directions(policy["spec"])
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not about:
        return None
    return [
        (policy["metadata"]["namespace"], rule)
        for policy in about
        for rule in policy["spec"].get(direction.lower()) or ()
    ]


def _directions(spec: Manifest) -> Sequence[str]:
    # As the API server fills it in: an empty list of rules makes no policy about egress.
    default = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    directions: Sequence[str] = spec.get("policyTypes") or default
    return directions


def _matching(rules: Iterable[tuple[str, Manifest]], peer: Endpoint) -> list[Manifest]:
    found = []
    for namespace, rule in rules:
        peers = rule.get("to") or rule.get("from")
        if not peers or any(is_peer(entry, peer, namespace) for entry in peers):
            found.append(rule)
    return found


def is_peer(entry: Manifest, peer: Endpoint, namespace: str) -> bool:
    if "ipBlock" in entry:
        # Plugins differ in whether a block covers pods; here it does, which is the worse case.
        address = ipaddress.ip_address(peer.address)
        inside = address in ipaddress.ip_network(entry["ipBlock"]["cidr"])
        return inside and not any(
            address in ipaddress.ip_network(block) for block in entry["ipBlock"].get("except") or ()
        )
    if not peer.namespace:
        return False
    if "namespaceSelector" in entry:
        there = selects(entry["namespaceSelector"], peer.namespace_labels)
    else:
        there = peer.namespace == namespace
    return there and selects(entry.get("podSelector", {}), peer.labels)


def _fits(rule: Manifest, target: Endpoint, port: int, transport: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(
        entry.get("protocol", "TCP") == transport and _covers(entry, target, port) for entry in ports
    )


def _covers(entry: Manifest, target: Endpoint, port: int) -> bool:
    named = entry.get("port")
    if named is None:
        return True
    first = target.named_ports.get(named) if isinstance(named, str) else int(named)
    return first is not None and first <= port <= int(entry.get("endPort", first))


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a label selector covers these labels; an empty one covers all."""
    equal = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return equal and all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _holds(expression: Manifest, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"unknown operator {expression['operator']!r}")


def pod_templates(manifests: Iterable[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """(workload, pod template) of everything that makes pods."""
    for manifest in manifests:
        spec = manifest.get("spec") or {}
        if manifest["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if manifest["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}:
            yield manifest, spec["template"]


def endpoints(manifests: Sequence[Manifest]) -> list[Endpoint]:
    """The places' pods, as the manifests label them where they hold them, and the strangers."""
    labels = {
        manifest["metadata"]["name"]: {
            NAMESPACE_NAME: manifest["metadata"]["name"],
            **(manifest["metadata"].get("labels") or {}),
        }
        for manifest in manifests
        if manifest["kind"] == "Namespace"
    }
    found = list(_held(manifests, labels))
    held = {endpoint.place for endpoint in found}
    found += [_supposed(place, labels, manifests) for place in Place if place not in held]
    found += _strangers(labels)
    return found


def _held(manifests: Sequence[Manifest], labels: Mapping[str, Mapping[str, str]]) -> Iterator[Endpoint]:
    for number, (workload, template) in enumerate(pod_templates(manifests)):
        namespace, own = workload["metadata"]["namespace"], template["metadata"]["labels"]
        ports = {
            port["name"]: port["containerPort"]
            for container in template["spec"]["containers"]
            for port in container.get("ports") or ()
        }
        place = own.get(POD_NAME, "")
        known = place in set(Place) and NAMESPACES.get(Place(place)) == namespace
        name = place if known else f"{workload['kind']} {workload['metadata']['name']}"
        yield Endpoint(name, f"10.42.1.{number + 1}", namespace, labels.get(namespace, {}), own, ports)


def _supposed(place: Place, labels: Mapping[str, Mapping[str, str]], manifests: Sequence[Manifest]) -> Endpoint:
    placement = PLACEMENTS[place]
    if placement.cidr:
        return Endpoint(place, _address(place, manifests))
    name = placement.namespace.get(NAMESPACE_NAME, f"any-{place}")
    known = labels.get(name, placement.namespace)
    return Endpoint(place, f"10.42.2.{list(Place).index(place) + 1}", name, known, placement.pods)


def _address(place: Place, manifests: Sequence[Manifest]) -> str:
    """The first address of the block that the overlay's owner wrote down."""
    for manifest in manifests:
        if manifest["kind"] == "NetworkPolicy" and manifest["metadata"]["name"].endswith(f"-to-{place}"):
            block = manifest["spec"]["egress"][0]["to"][0]["ipBlock"]["cidr"]
            return str(ipaddress.ip_network(block)[0])
    return str(ipaddress.ip_network(PLACEMENTS[place].cidr)[0])


def _strangers(labels: Mapping[str, Mapping[str, str]]) -> Iterator[Endpoint]:
    """Who must reach nothing and be reached by nobody: another name beside each place, and its name elsewhere."""
    for number, (place, placement) in enumerate(PLACEMENTS.items(), 1):
        if not placement.pods:
            continue
        name = placement.namespace.get(NAMESPACE_NAME, f"any-{place}")
        known = labels.get(name, placement.namespace)
        yield Endpoint(f"stranger beside {place}", f"10.42.3.{number}", name, known, {POD_NAME: "stranger"})
        known = {NAMESPACE_NAME: "elsewhere"}
        yield Endpoint(f"{place} elsewhere", f"10.42.4.{number}", "elsewhere", known, placement.pods)
        for row, namespace in enumerate(OWNED):
            if NAMESPACES.get(place) != namespace:
                address, known = f"10.42.{5 + row}.{number}", labels.get(namespace, {})
                yield Endpoint(f"{place} in {namespace}", address, namespace, known, placement.pods)
    yield Endpoint("the internet", "203.0.113.9")
    yield Endpoint("the cloud's metadata", "169.254.169.254")
    yield Endpoint("the Kubernetes API", "10.43.0.1")
