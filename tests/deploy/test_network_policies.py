"""The rendered NetworkPolicies open what the allow table names and nothing else; the evaluator would see it if not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from common.boundary.allow_table import edges
from tools.manifests import policies
from tools.manifests.evaluate import closed_edges, open_edges
from tools.manifests.kustomize import ROOT, components, opened_by, overlays, rendered

Manifest = dict[str, Any]


def test_the_files_are_what_the_allow_table_says() -> None:
    stale = [str(path) for path, text in policies.files().items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `python -m tools.manifests.policies`"


@pytest.mark.parametrize("overlay", overlays())
def test_an_overlay_opens_every_allowed_edge_and_no_other(overlay: str) -> None:
    manifests = rendered(overlay)
    allowed = opened_by(overlay)
    assert open_edges(manifests) - allowed == set()
    assert closed_edges(manifests) & allowed == set()


def test_the_three_services_never_reach_one_another_but_by_the_auditor() -> None:
    """A second reading of the table's edges, in words of its own."""
    opened = {(source, target) for source, target, _, _ in open_edges(rendered("production"))}
    services = {"teacher", "student", "auditor"}
    between = {pair for pair in opened if set(pair) <= services}
    assert between == {("auditor", "teacher"), ("auditor", "student")}


def test_every_component_of_the_table_is_a_folder() -> None:
    named = {edge.component for edge in edges()} - {""}
    assert named <= {path.parent.name for path in (ROOT / "components").glob("*/kustomization.yaml")}


def test_production_takes_every_component_that_the_boundary_is_tested_with() -> None:
    assert {"monitoring", "tracing", "postgres", "object-store"} <= components("production")


def _policies(manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]


def _without_refusals(manifests: list[Manifest]) -> None:
    for policy in _policies(manifests):
        if policy["metadata"]["name"] == "refuse-everything" and policy["metadata"]["namespace"] == "seal-teacher":
            manifests.remove(policy)


def _ingress_alone_refused(manifests: list[Manifest]) -> None:
    for policy in _policies(manifests):
        if policy["metadata"]["name"] == "refuse-everything":
            policy["spec"]["policyTypes"] = ["Ingress"]


def _named(manifests: list[Manifest], name: str) -> Manifest:
    return next(policy for policy in _policies(manifests) if policy["metadata"]["name"] == name)


def _either_selector(manifests: list[Manifest]) -> None:
    """Two peers where one with both selectors was meant."""
    rule = _named(manifests, "student-from-application")["spec"]["ingress"][0]
    peer = rule["from"][0]
    rule["from"] = [{key: value} for key, value in peer.items()]


def _any_namespace(manifests: list[Manifest]) -> None:
    for policy in _policies(manifests):
        if policy["metadata"]["name"] == "auditor-from-operator":
            policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"] = {}


def _any_port(manifests: list[Manifest]) -> None:
    del _named(manifests, "teacher-from-auditor")["spec"]["ingress"][0]["ports"]
    del _named(manifests, "auditor-to-teacher")["spec"]["egress"][0]["ports"]


def _a_range_of_ports(manifests: list[Manifest]) -> None:
    for name, direction in (("student-from-auditor", "ingress"), ("auditor-to-student", "egress")):
        _named(manifests, name)["spec"][direction][0]["ports"][0]["endPort"] = 50070


def _a_port_that_no_list_of_ours_names(manifests: list[Manifest]) -> None:
    for name, direction in (("student-from-auditor", "ingress"), ("auditor-to-student", "egress")):
        _named(manifests, name)["spec"][direction][0]["ports"].append({"port": 5005, "protocol": "TCP"})


def _a_refusal_that_forgets_to_say_of_what(manifests: list[Manifest]) -> None:
    """Without policyTypes an empty list of egress rules refuses nothing."""
    for policy in _policies(manifests):
        if policy["metadata"]["name"] == "refuse-everything":
            del policy["spec"]["policyTypes"]
            policy["spec"] |= {"ingress": [], "egress": []}


def _any_protocol(manifests: list[Manifest]) -> None:
    for name, direction in (("student-from-auditor", "ingress"), ("auditor-to-student", "egress")):
        ports = _named(manifests, name)["spec"][direction][0]["ports"]
        ports.append({**ports[0], "protocol": "UDP"})


def _the_whole_internet(manifests: list[Manifest]) -> None:
    rule = _named(manifests, "student-to-object-store")["spec"]["egress"][0]
    rule["to"][0]["ipBlock"]["cidr"] = "0.0.0.0/0"


def _pods_that_the_policies_do_not_select(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] == "Deployment" and manifest["metadata"]["name"] == "teacher":
            manifest["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = "teachers"


OPENED = [
    _without_refusals,
    _ingress_alone_refused,
    _either_selector,
    _any_namespace,
    _any_port,
    _a_range_of_ports,
    _a_port_that_no_list_of_ours_names,
    _a_refusal_that_forgets_to_say_of_what,
    _any_protocol,
    _the_whole_internet,
]


@pytest.mark.parametrize("plant", OPENED, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_opening_is_found(plant: Callable[[list[Manifest]], None]) -> None:
    manifests = rendered("production")
    plant(manifests)
    assert open_edges(manifests) - opened_by("production") != set()


def test_pods_under_another_name_are_found_as_what_nobody_may_reach() -> None:
    """A workload of our namespaces that is no place: it must stay cut off, and what it was meant to be is gone."""
    manifests = rendered("production")
    _pods_that_the_policies_do_not_select(manifests)
    assert "teachers" not in {end for source, target, _, _ in open_edges(manifests) for end in (source, target)}
    assert {edge[:2] for edge in closed_edges(manifests)} >= {("auditor", "Deployment teacher")}


@pytest.mark.parametrize("gone", ["auditor-to-teacher", "teacher-from-auditor", "scheduler-to-dns"])
def test_an_allowed_edge_that_one_end_refuses_is_found(gone: str) -> None:
    manifests = rendered("production")
    manifests.remove(_named(manifests, gone))
    assert closed_edges(manifests) & opened_by("production") != set()


def test_a_policy_that_names_a_port_by_name_is_resolved_at_the_target() -> None:
    manifests = rendered("production")
    _named(manifests, "teacher-from-auditor")["spec"]["ingress"][0]["ports"] = [{"port": "metrics"}]
    assert ("auditor", "teacher", 50051, "TCP") in closed_edges(manifests)
    assert ("auditor", "teacher", 9101, "TCP") not in open_edges(manifests)  # the other end still refuses it
    _named(manifests, "auditor-to-teacher")["spec"]["egress"][0]["ports"] = [{"port": "metrics"}]
    assert ("auditor", "teacher", 9101, "TCP") in open_edges(manifests)
