"""Pods of every overlay: settings that services accept, ports and probes that fit them, shutdowns that add up."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from auditor.config import AuditorConfig
from common.boundary.allow_table import GRPC_PORTS, HEALTH_PORTS, METRICS_PORTS, Place
from common.contract.seal.v1 import auditor_pb2, student_pb2, teacher_pb2
from student.config import StudentConfig
from teacher.config import TeacherConfig
from tests.deploy.cluster import CONFIGS, NAME, OVERLAYS, Manifest, Pod, of_kind, pods, services
from tools.manifests.kustomize import components, rendered

FULL_NAMES = {
    "teacher": teacher_pb2.DESCRIPTOR.services_by_name["TeacherService"].full_name,
    "student": student_pb2.DESCRIPTOR.services_by_name["StudentService"].full_name,
    "auditor": auditor_pb2.DESCRIPTOR.services_by_name["AuditorService"].full_name,
}
# After the last call: engines end, the store is let go of.
LETTING_GO_SECONDS = 30
# What libraries write to beside the store, by the variable that says where.
CACHES = {
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "SEAL_CACHE",
    "HF_HOME",
    "TORCH_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "TRITON_HOME",
    "TRITON_CACHE_DIR",
    "VLLM_CACHE_ROOT",
    "VLLM_CONFIG_ROOT",
    "FLASHINFER_WORKSPACE_BASE",
    "NUMBA_CACHE_DIR",
    "CUDA_CACHE_PATH",
}

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@each_overlay
def test_every_service_runs_with_settings_that_it_accepts(overlay: str) -> None:
    found = {pod.labels[NAME] for pod, _ in services(rendered(overlay))}
    assert found == set(CONFIGS)


@each_overlay
def test_a_pod_names_the_ports_that_its_service_listens_at(overlay: str) -> None:
    for pod, config in services(rendered(overlay)):
        listening = {
            "grpc": config.listen,
            "health": config.health_listen,
            "metrics": config.metrics_listen,
        }
        assert pod.ports == {name: int(address.rpartition(":")[2]) for name, address in listening.items()}, pod.name
        assert {address.rpartition(":")[0] for address in listening.values()} == {"0.0.0.0"}, pod.name
        place = Place(pod.labels[NAME])
        assert pod.ports == {
            "grpc": GRPC_PORTS[place],
            "health": HEALTH_PORTS[place],
            "metrics": METRICS_PORTS[place],
        }


@each_overlay
def test_probes_ask_the_port_for_health_by_the_names_that_the_service_answers_to(overlay: str) -> None:
    for pod, _ in services(rendered(overlay)):
        probes = {probe: pod.container[f"{probe}Probe"]["grpc"] for probe in ("startup", "readiness", "liveness")}
        assert {probe["port"] for probe in probes.values()} == {pod.ports["health"]}
        assert probes["readiness"]["service"] == FULL_NAMES[pod.labels[NAME]]
        # The empty name is liveness, which answers while a model is loaded or trained.
        assert probes["liveness"].get("service", "") == "" == probes["startup"].get("service", "")


@each_overlay
def test_a_pod_has_the_time_that_its_shutdown_takes(overlay: str) -> None:
    for pod, config in services(rendered(overlay)):
        sleep = pod.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        needed = sleep + config.grace_seconds + LETTING_GO_SECONDS
        assert pod.spec["terminationGracePeriodSeconds"] >= needed, pod.name
        # Clients must have asked DNS anew by then.
        assert sleep >= pod.container["readinessProbe"]["periodSeconds"]


@each_overlay
def test_services_show_certificates_of_the_folder_that_is_mounted(overlay: str) -> None:
    for pod, config in services(rendered(overlay)):
        assert config.tls is not None
        for path in (config.tls.certificate, config.tls.key, config.tls.ca):
            assert str(path.parent) == pod.mounts["/var/run/seal/tls"]["mountPath"]
        assert pod.volumes["tls"]["secret"]["secretName"] == f"seal-{pod.labels[NAME]}-tls"


@each_overlay
def test_what_a_pod_writes_is_on_a_volume(overlay: str) -> None:
    for pod, config in services(rendered(overlay)):
        caches = CACHES & pod.environment.keys()
        assert caches == (CACHES if pod.labels[NAME] != "auditor" else {"HOME", "TMPDIR", "HF_HOME"})
        outside = {name for name in caches if not pod.writable(pod.environment[name])}
        assert outside == set(), pod.name
        store = str(getattr(config, "store", "/var/lib/seal"))
        if isinstance(config, StudentConfig) and store.startswith("s3://"):
            store = str(config.bucket.cache)
            room = pod.volumes["store"]["emptyDir"]["sizeLimit"]
            assert config.bucket.cache_mib < int(room.removesuffix("Gi")) * 1_024
            assert str(config.bucket.credentials_file).startswith("/var/run/seal/object-store/")
        assert pod.writable(store), pod.name
        database = str(getattr(config, "database", ""))
        if database.startswith("sqlite:///"):
            assert pod.writable(database.removeprefix("sqlite:///"))


@each_overlay
def test_the_user_of_a_pod_can_read_its_secrets_and_nobody_can_write_them(overlay: str) -> None:
    for pod in pods(rendered(overlay)):
        secrets = [volume["secret"] for volume in pod.volumes.values() if "secret" in volume]
        assert secrets, pod.name
        # Files of a Secret belong to root and to the group fsGroup.
        assert pod.spec["securityContext"]["fsGroup"] == pod.spec["securityContext"]["runAsGroup"], pod.name
        assert {secret["defaultMode"] for secret in secrets} == {0o440}, pod.name


@each_overlay
def test_the_ledger_has_one_writer_and_outlives_its_pod(overlay: str) -> None:
    manifests = rendered(overlay)
    [(pod, config)] = [(pod, config) for pod, config in services(manifests) if isinstance(config, AuditorConfig)]
    assert (pod.workload["kind"], pod.workload["spec"]["replicas"]) == ("StatefulSet", 1)
    if "postgres" not in components(overlay):
        assert pod.claimed(config.database.removeprefix("sqlite:///"))
        return
    url, query = urlsplit(config.database), parse_qs(urlsplit(config.database).query)
    assert url.scheme.startswith("postgresql")
    [service] = [found for found in of_kind(manifests, "Service") if found["metadata"]["name"] == "postgres"]
    [server] = [found for found in pods(manifests) if found.name == "postgres"]
    assert url.hostname == f"postgres.{service['metadata']['namespace']}.svc.cluster.local"
    assert url.port == service["spec"]["ports"][0]["port"] == server.ports["postgres"]
    assert query == {"sslmode": ["verify-full"], "sslrootcert": [str(config.tls.ca) if config.tls else ""]}
    assert server.claimed(server.environment["PGDATA"])
    assert (url.username, url.path) == (server.environment["POSTGRES_USER"], f"/{server.environment['POSTGRES_DB']}")
    # One Secret, mounted where each of the two looks for the password.
    for reader, file in (
        (pod, str(config.database_password_file)),
        (server, server.environment["POSTGRES_PASSWORD_FILE"]),
    ):
        mount = reader.mounts[file.removesuffix("/password")]
        assert reader.volumes[mount["name"]]["secret"]["secretName"] == "seal-postgres"


@each_overlay
def test_no_more_threads_than_cores(overlay: str) -> None:
    for pod, config in services(rendered(overlay)):
        model = getattr(config, "model", None)
        if model is not None:
            assert 0 < model.threads <= int(pod.container["resources"]["limits"]["cpu"]), pod.name


@each_overlay
def test_a_device_is_there_for_every_setting_that_names_one(overlay: str) -> None:
    for pod, config in services(rendered(overlay)):
        gpus = int(pod.container["resources"]["limits"].get("nvidia.com/gpu", 0))
        model = getattr(config, "model", None)
        assert (model is not None and model.device == "cuda") == (gpus > 0), pod.name
        if isinstance(config, TeacherConfig):
            assert config.vllm.tensor_parallel_size == max(gpus, 1)


def _hardened(pod: Pod) -> set[str]:
    """What of the restricted profile, and beyond it, a pod lacks."""
    context, of_pod = pod.container["securityContext"], pod.spec["securityContext"]
    kept = {
        "no root": of_pod["runAsNonRoot"] and context["runAsNonRoot"] and of_pod["runAsUser"] >= 10_000,
        "no escalation": context["allowPrivilegeEscalation"] is False,
        "no capabilities": context["capabilities"] == {"drop": ["ALL"]},
        "read-only root": context["readOnlyRootFilesystem"] is True,
        "seccomp": of_pod["seccompProfile"] == {"type": "RuntimeDefault"},
        "no token": pod.spec["automountServiceAccountToken"] is False,
        "own account": pod.spec["serviceAccountName"] not in {"", "default"},
        "no links": pod.spec["enableServiceLinks"] is False,
        "no host": not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys(),
        "no host paths": not any("hostPath" in volume for volume in pod.volumes.values()),
        "limits": {"cpu", "memory", "ephemeral-storage"} <= pod.container["resources"]["limits"].keys(),
        "requests": {"cpu", "memory"} <= pod.container["resources"]["requests"].keys(),
        "secrets as files": not any("valueFrom" in entry for entry in pod.container.get("env", []))
        and "envFrom" not in pod.container,
        "small scratch": all(
            "sizeLimit" in volume["emptyDir"] for volume in pod.volumes.values() if "emptyDir" in volume
        ),
    }
    return {what for what, holds in kept.items() if not holds}


@each_overlay
def test_pods_may_do_as_little_as_they_can(overlay: str) -> None:
    manifests = rendered(overlay)
    assert {pod.name: lacking for pod in pods(manifests) if (lacking := _hardened(pod))} == {}
    accounts = of_kind(manifests, "ServiceAccount")
    assert {account["automountServiceAccountToken"] for account in accounts} == {False}
    known = {(account["metadata"]["namespace"], account["metadata"]["name"]) for account in accounts}
    assert {(pod.namespace, pod.spec["serviceAccountName"]) for pod in pods(manifests)} == known


@each_overlay
def test_namespaces_hold_pods_to_the_restricted_profile(overlay: str) -> None:
    for namespace in of_kind(rendered(overlay), "Namespace"):
        levels = {namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn")}
        assert levels == {"restricted"}


@each_overlay
def test_every_mount_has_its_volume_and_every_volume_its_mount(overlay: str) -> None:
    for pod in pods(rendered(overlay)):
        mounted = {mount["name"] for mount in pod.container["volumeMounts"]}
        assert mounted == pod.volumes.keys(), pod.name


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]


@each_overlay
def test_claims_and_config_maps_that_pods_mount_exist(overlay: str) -> None:
    manifests = rendered(overlay)
    there = {
        kind: {_key(found) for found in of_kind(manifests, kind)} for kind in ("PersistentVolumeClaim", "ConfigMap")
    }
    there["ConfigMap"].add(("seal-runs", "documents"))  # its owner makes it: docs/deploy.md
    for pod in pods(manifests):
        for volume in pod.volumes.values():
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert (pod.namespace, claim) in there["PersistentVolumeClaim"]
            if "configMap" in volume:
                assert (pod.namespace, volume["configMap"]["name"]) in there["ConfigMap"]
