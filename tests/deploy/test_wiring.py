"""What points at pods by label or name points at some: Services, budgets, scalers, monitors, runs, certificates."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from auditor.config import AuditorConfig
from common.boundary.allow_table import GRPC_PORTS, Place, edges
from common.boundary.identities import Identity, Role
from common.contract.seal.v1 import student_pb2
from common.prompting import SYSTEM_PROMPT
from student.config import StudentConfig
from tests.deploy.cluster import NAME, OVERLAYS, Manifest, Pod, of_kind, pods, services
from tests.monitoring.table import documented
from tools.manifests.evaluate import closed_edges, open_edges, selects
from tools.manifests.kustomize import ROOT, components, opened_by, rendered, rendered_folder
from tools.manifests.places import NAMESPACES
from tools.manifests.schemas import custom

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
COMPONENTS = sorted(path.parent.name for path in (ROOT / "components").glob("*/kustomization.yaml"))
DEPLOY_MANUAL = ROOT.parents[1] / "docs" / "deploy.md"


def _auditor(manifests: list[Manifest]) -> AuditorConfig:
    [config] = [config for _, config in services(manifests) if isinstance(config, AuditorConfig)]
    return config


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _selected(manifests: list[Manifest], namespace: str, selector: dict[str, Any]) -> list[Pod]:
    return [pod for pod in pods(manifests) if pod.namespace == namespace and selects(selector, pod.labels)]


@each_overlay
def test_a_service_is_headless_and_selects_the_pods_of_one_workload(overlay: str) -> None:
    manifests = rendered(overlay)
    for service in of_kind(manifests, "Service"):
        spec, namespace = service["spec"], service["metadata"]["namespace"]
        assert spec["clusterIP"] == "None"  # a client sees every pod and takes them in turn
        [pod] = _selected(manifests, namespace, {"matchLabels": spec["selector"]})
        for port in spec["ports"]:
            assert pod.ports[port["targetPort"]] == port["port"]


@each_overlay
def test_a_workload_selects_its_own_pods_and_no_others(overlay: str) -> None:
    manifests = rendered(overlay)
    for pod in pods(manifests):
        selector = pod.workload["spec"].get("selector")
        if selector is not None:
            assert [found.name for found in _selected(manifests, pod.namespace, selector)] == [pod.name]


@each_overlay
def test_every_service_has_a_budget_that_lets_a_node_be_drained(overlay: str) -> None:
    manifests = rendered(overlay)
    kept = set()
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        [pod] = _selected(manifests, budget["metadata"]["namespace"], budget["spec"]["selector"])
        assert budget["spec"]["maxUnavailable"] >= 1
        kept.add(pod.name)
    assert kept == {pod.name for pod in pods(manifests) if pod.workload["kind"] != "CronJob"}


@each_overlay
def test_the_auditor_dials_services_that_exist(overlay: str) -> None:
    manifests = rendered(overlay)
    names = {
        f"dns:///{found['metadata']['name']}.{found['metadata']['namespace']}.svc.cluster.local:{port['port']}"
        for found in of_kind(manifests, "Service")
        for port in found["spec"]["ports"]
    }
    config = _auditor(manifests)
    assert {config.teacher.target, config.student.target} <= names
    assert {pod.environment["SEAL_AUDITOR"] for pod in pods(manifests) if pod.labels[NAME] == "scheduler"} <= names


@each_overlay
def test_monitors_and_scalers_find_what_they_name(overlay: str) -> None:
    manifests = rendered(overlay)
    watched = set()
    for monitor in of_kind(manifests, "PodMonitor"):
        [pod] = _selected(manifests, monitor["metadata"]["namespace"], monitor["spec"]["selector"])
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} == {"metrics"}
        assert "metrics" in pod.ports
        watched.add(pod.name)
    assert watched == ({"teacher", "student", "auditor"} if "monitoring" in components(overlay) else set())
    for scaler in of_kind(manifests, "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        [pod] = [
            found
            for found in pods(manifests)
            if found.workload["kind"] == target["kind"] and found.name == target["name"]
        ]
        assert "replicas" not in pod.workload["spec"]  # or every apply would set back what the scaler chose


def test_students_that_are_all_busy_call_for_more() -> None:
    """The auditor has one call at a replica and keeps what waits to itself: a queue at the students says nothing."""
    [scaler] = of_kind(rendered("production"), "ScaledObject")
    [trigger] = scaler["spec"]["triggers"]
    asked = re.fullmatch(r"sum\((\w+)\{(.*)\}\)", trigger["metadata"]["query"])
    assert asked is not None
    assert asked[1] == "seal_rpcs_in_flight"
    assert asked[1] in {series for metric in documented() for series in metric.series}
    assert 'namespace="seal-student"' in asked[2]
    methods = re.search(r'grpc_method=~"(.*)"', asked[2])
    assert methods is not None
    service = student_pb2.DESCRIPTOR.services_by_name["StudentService"]
    assert {method.name for method in service.methods if method.server_streaming} == set(methods[1].split("|"))
    least, most = scaler["spec"]["minReplicaCount"], scaler["spec"]["maxReplicaCount"]
    for busy in range(least, most):
        wanted = busy / float(trigger["metadata"]["threshold"])
        assert wanted > busy * 1.1  # what a HorizontalPodAutoscaler takes for the same
        assert math.ceil(wanted) > busy


@each_overlay
def test_several_students_share_their_store(overlay: str) -> None:
    manifests = rendered(overlay)
    modes = {_key(claim): claim["spec"]["accessModes"] for claim in of_kind(manifests, "PersistentVolumeClaim")}
    [(student, config)] = [(pod, config) for pod, config in services(manifests) if pod.labels[NAME] == "student"]
    assert isinstance(config, StudentConfig)
    several = student.workload["spec"].get("replicas") != 1
    in_a_bucket = str(config.store).startswith("s3:")
    assert several == (in_a_bucket or modes["seal-student", "student-store"] == ["ReadWriteMany"])
    assert several == (modes["seal-student", "models"] == ["ReadWriteMany"])
    assert student.workload["spec"]["strategy"]["type"] == ("RollingUpdate" if several else "Recreate")
    assert (_auditor(manifests).student.replicas == 0) == several  # orders are spread over as many as there are


def test_answers_begin_with_the_prompt_that_edits_are_trained_with() -> None:
    for pod, config in services(rendered("local")):
        if pod.labels[NAME] == "student":
            assert isinstance(config, StudentConfig)
            assert config.model.system_prompt == SYSTEM_PROMPT


@each_overlay
def test_runs_are_started_by_the_scheduler_alone_and_one_at_a_time(overlay: str) -> None:
    jobs = [pod for pod in pods(rendered(overlay)) if pod.workload["kind"] == "CronJob"]
    assert {job.name for job in jobs} == {"nightly", "merged-change"}
    assert len({yaml.safe_dump(job.template) for job in jobs}) == 1, "both start the same"
    for job in jobs:
        assert {volume["secret"]["secretName"] for volume in job.volumes.values() if "secret" in volume} == {
            "seal-scheduler-tls"
        }
        assert job.namespace == NAMESPACES[Place.SCHEDULER]
        spec = job.workload["spec"]
        assert spec["concurrencyPolicy"] == "Forbid"
        assert spec.get("suspend", False) == (job.name == "merged-change")
        assert job.container["args"][job.container["args"].index("--changed-since") + 1] == "/var/lib/seal/state.json"
        assert job.writable("/var/lib/seal/state.json")


@each_overlay
def test_pipelines_may_start_runs_and_nothing_else(overlay: str) -> None:
    manifests = rendered(overlay)
    [role] = of_kind(manifests, "Role")
    assert role["metadata"]["namespace"] == NAMESPACES[Place.SCHEDULER]
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert {resource for resource, verb in granted if verb not in {"get", "list", "watch"}} == {"jobs", "configmaps"}
    assert not {"secrets", "pods/exec", "*"} & {word for pair in granted for word in pair}
    # Whoever starts a Job can mount what lies in its namespace: no other identity's key may.
    names = {
        certificate["spec"]["secretName"]
        for certificate in of_kind(manifests, "Certificate")
        if certificate["metadata"]["namespace"] == "seal-runs"
    }
    assert names <= {"seal-scheduler-tls"}


def test_certificates_name_the_identity_of_their_namespace() -> None:
    issued = {}
    for certificate in of_kind(rendered("production"), "Certificate"):
        spec = certificate["spec"]
        for uri in spec.get("uris", []):
            identity = Identity.of_uri(uri, "seal.internal")
            assert identity is not None
            assert spec["secretName"] == f"seal-{identity.role}-tls"
            assert certificate["metadata"]["namespace"] == NAMESPACES[Place(identity.role)]
            assert identity.host("seal.internal") in spec["dnsNames"]  # what clients compare
            serves = Place(identity.role) in GRPC_PORTS
            assert set(spec["usages"]) == {"digital signature", "client auth"} | ({"server auth"} if serves else set())
            issued[identity.role] = spec
    assert issued.keys() == {Role.TEACHER, Role.STUDENT, Role.AUDITOR, Role.SCHEDULER}


def _allows(policy: Manifest, certificate: Manifest) -> bool:
    """As approver-policy decides: what is not named is refused, and what is required must be there."""
    chosen, allowed, asked = policy["spec"]["selector"], policy["spec"]["allowed"], certificate["spec"]
    named = {field: set(allowed.get(field, {}).get("values", [])) for field in ("uris", "dnsNames")}
    return bool(
        certificate["metadata"]["namespace"] in chosen["namespace"]["matchNames"]
        and asked["issuerRef"] == chosen["issuerRef"]
        and set(asked.get("usages", [])) <= set(allowed.get("usages", []))
        and all(set(asked.get(field, [])) <= values for field, values in named.items())
        and all(asked.get(field) for field in named if allowed.get(field, {}).get("required"))
        and asked.get("isCA", False) == allowed.get("isCA", False)
        and asked.get("commonName") == allowed.get("commonName", {}).get("value")
        and int(asked["duration"].removesuffix("h"))
        <= int(policy["spec"]["constraints"]["maxDuration"].removesuffix("h"))
    )


def test_a_namespace_is_signed_its_own_identity_and_no_other() -> None:
    manifests = rendered("production")
    policies = of_kind(manifests, "CertificateRequestPolicy")
    [role] = of_kind(manifests, "ClusterRole")
    assert set(role["rules"][0]["resourceNames"]) == {policy["metadata"]["name"] for policy in policies}
    for certificate in of_kind(manifests, "Certificate"):
        assert [policy for policy in policies if _allows(policy, certificate)], certificate["metadata"]["name"]
        for namespace in ("seal-teacher", "seal-student", "seal-auditor", "seal-runs", "default"):
            if namespace != certificate["metadata"]["namespace"]:
                moved = {**certificate, "metadata": {**certificate["metadata"], "namespace": namespace}}
                assert not [policy for policy in policies if _allows(policy, moved)]
        for uri in ("spiffe://seal.internal/operator/mallory", "spiffe://seal.internal/application"):
            bolder = {**certificate, "spec": {**certificate["spec"], "uris": [uri]}}
            assert not [policy for policy in policies if _allows(policy, bolder)]


@each_overlay
def test_the_manual_says_how_every_secret_is_made(overlay: str) -> None:
    manifests = rendered(overlay)
    made = {certificate["spec"]["secretName"] for certificate in of_kind(manifests, "Certificate")}
    mounted = {
        volume["secret"]["secretName"]
        for pod in pods(manifests)
        for volume in pod.volumes.values()
        if "secret" in volume
    }
    manual = DEPLOY_MANUAL.read_text()
    if "for service in teacher student auditor; do\n        kubectl -n seal-$service create secret" in manual:
        made |= {f"seal-{service}-tls" for service in ("teacher", "student", "auditor")}
    assert {secret for secret in mounted - made if secret not in manual} == set()


def test_two_revisions_of_the_teacher_stand_side_by_side() -> None:
    manifests = rendered("two-teachers")
    teachers = {pod.name: pod for pod, _ in services(manifests) if pod.labels[NAME] == "teacher"}
    assert teachers.keys() == {"teacher", "teacher-next"}
    stores = {pod.volumes["store"]["persistentVolumeClaim"]["claimName"] for pod in teachers.values()}
    assert len(stores) == 2
    assert _auditor(manifests).teacher.target == "dns:///teacher-next.seal-teacher.svc.cluster.local:50051"


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_alone_opens_its_own_edges(component: str, tmp_path: Path) -> None:
    taken = [component] if component != "autoscaling" else ["shared-store", component]
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(ROOT / "base", tmp_path)],
        "components": [os.path.relpath(ROOT / "components" / name, tmp_path) for name in taken],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    manifests = rendered_folder(tmp_path)
    allowed = opened_by("local") | _edges_of(component)
    assert open_edges(manifests) - allowed == set()
    assert closed_edges(manifests) & allowed == set()
    assert {pod.labels[NAME] for pod, _ in services(manifests)} == {"teacher", "student", "auditor"}


def _edges_of(component: str) -> set[tuple[str, str, int, str]]:
    return {
        (str(edge.source), str(edge.target), edge.port, str(edge.transport))
        for edge in edges()
        if edge.component == component
    }


@each_overlay
def test_every_kind_that_kubernetes_does_not_know_has_a_schema(overlay: str) -> None:
    own = {"monitoring.coreos.com", "cert-manager.io", "policy.cert-manager.io", "keda.sh"}
    foreign = {
        f"{found['apiVersion']}/{found['kind']}"
        for found in rendered(overlay)
        if found["apiVersion"].split("/")[0] in own
    }
    assert foreign <= custom().keys()
