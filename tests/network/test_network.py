"""The NetworkPolicies, enforced by a kernel: what they forbid is closed, and a real run goes through the rest."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.network.firewall import rules_of
from tests.support.tiny_services import ROOT
from tools.manifests.evaluate import Endpoint

POLICY = {
    "kind": "NetworkPolicy",
    "metadata": {"name": "one", "namespace": "a"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "one"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "two"}}}], "ports": [{"port": "grpc"}]}],
        "egress": [
            {"to": [{"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.1/32"]}}], "ports": [{"protocol": "UDP"}]}
        ],
    },
}
ONE = Endpoint("one", "10.0.1.1", "a", {}, {"app": "one"}, {"grpc": 50051})
TWO = Endpoint("two", "10.0.1.2", "a", {}, {"app": "two"})


@pytest.mark.network
@pytest.mark.timeout(1_200)
def test_forbidden_edges_are_closed_and_a_run_goes_through_the_others() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.network"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=1_180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["edges"] > 20
    assert said["forbidden"] > 10_000
    assert (said["forbidden_open"], said["allowed_closed"], said["run"]) == (0, 0, "finished")
    assert said["planted_open_found"] is True


def test_rules_say_what_the_policy_says_in_both_directions() -> None:
    lines = [line.strip() for line in rules_of(ONE, [ONE, TWO], [POLICY]).splitlines()]
    assert [line for line in lines if line.startswith("ip ")] == [
        "ip daddr 10.0.0.2/31 meta l4proto udp accept",
        "ip daddr 10.0.0.0/32 meta l4proto udp accept",
        "ip saddr 10.0.1.2 tcp dport 50051 accept",
    ]
    assert sum("policy drop" in line for line in lines) == 2


def test_a_pod_that_no_policy_is_about_is_open() -> None:
    assert rules_of(TWO, [ONE, TWO], [POLICY]) == ""
