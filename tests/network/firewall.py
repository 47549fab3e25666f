"""Turns NetworkPolicies into nftables' rules for one pod, as a network plugin does: what may leave it, what may enter.

The two directions are separate, and the kernel decides: nothing here knows what the allow table says, nor what the
evaluator of tools/manifests makes of both sides together. A refused connection is reset rather than left to wait, so
that a thousand of them take no time; what is open is the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from tools.manifests.evaluate import Endpoint, Manifest, is_peer, rules_about

CHAIN = """
table inet policies {{
  chain {name} {{
    type filter hook {hook} priority 0; policy drop;
    {through} lo accept
    ct state established,related accept
    meta nfproto ipv6 drop
    {rules}
    meta l4proto tcp reject with tcp reset
  }}
}}
"""
DIRECTIONS = (("Egress", "output", "daddr"), ("Ingress", "input", "saddr"))


def rules_of(pod: Endpoint, everybody: Sequence[Endpoint], manifests: Sequence[Manifest]) -> str:
    """Empty where no policy is about the pod: then everything is open, as Kubernetes has it."""
    policies = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    chains = []
    for direction, hook, side in DIRECTIONS:
        written = rules_about(policies, pod, direction)
        if written is not None:
            lines = [
                f"ip {side} {peer} {ports} accept"
                for namespace, rule in written
                for peer, named in _peers(rule, namespace, everybody)
                for ports in _ports(rule, pod if direction == "Ingress" else named)
            ]
            through = "oif" if hook == "output" else "iif"
            rules = "\n    ".join(dict.fromkeys(lines))
            chains.append(CHAIN.format(name=direction.lower(), hook=hook, through=through, rules=rules))
    return "".join(chains)


def _peers(rule: Manifest, namespace: str, everybody: Sequence[Endpoint]) -> Iterator[tuple[str, Endpoint | None]]:
    """Addresses of the far end: of pods with whom they are, of blocks as they are written."""
    entries = rule.get("to") or rule.get("from")
    if not entries:
        yield "0.0.0.0/0", None
    for entry in entries or ():
        if "ipBlock" in entry:
            for network in _without(entry["ipBlock"]["cidr"], entry["ipBlock"].get("except") or ()):
                yield network, None
        else:
            for endpoint in everybody:
                if is_peer(entry, endpoint, namespace):
                    yield endpoint.address, endpoint


def _without(block: str, excepted: Sequence[str]) -> list[str]:
    networks = [ipaddress.IPv4Network(block)]
    for hole in map(ipaddress.IPv4Network, excepted):
        networks = [
            part
            for network in networks
            for part in (network.address_exclude(hole) if hole.subnet_of(network) else (network,))
        ]
    return list(map(str, networks))


def _ports(rule: Manifest, target: Endpoint | None) -> Iterator[str]:
    """As nftables matches them. A named port is the one that the target calls so."""
    if not rule.get("ports"):
        yield ""
    for entry in rule.get("ports") or ():
        transport, port = entry.get("protocol", "TCP").lower(), entry.get("port")
        if port is None:
            yield f"meta l4proto {transport}"
            continue
        if isinstance(port, str):
            port = target.named_ports.get(port) if target is not None else None
        if port is not None:
            yield f"{transport} dport {port}-{entry['endPort']}" if "endPort" in entry else f"{transport} dport {port}"
