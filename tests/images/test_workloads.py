"""The images and the cluster's workloads agree: what a pod is told to run, as whom, and where it may write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.images.dockerfile import ROOT, SERVICES, read

BASE = ROOT / "deploy" / "k8s" / "base"


def documents(folder: Path) -> list[dict[str, Any]]:
    return [found for file in sorted(folder.glob("*.yaml")) for found in yaml.safe_load_all(file.read_text()) if found]


def pod(service: str) -> dict[str, Any]:
    (workload,) = [d for d in documents(BASE / service) if d.get("kind") in ("Deployment", "StatefulSet")]
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_runs_what_its_image_is_made_for(service: str) -> None:
    file, spec = read(service), pod(service)
    (container,) = spec["containers"]
    final = file.final
    assert container["image"] == f"seal-{service}"
    assert [*container["command"], *container["args"]] == final.last("CMD").words
    user, group = (int(part) for part in final.last("USER").value.split(":"))
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (user, group)
    assert {port["containerPort"] for port in container["ports"]} == {int(p) for p in final.last("EXPOSE").words}


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_may_write_where_its_image_does(service: str) -> None:
    (container,) = pod(service)["containers"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert {*read(service).final.last("VOLUME").words, "/tmp"} <= mounted
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_scheduled_runs_find_the_command_line_in_the_auditors_image() -> None:
    jobs = [d for d in documents(BASE / "runs") if d.get("kind") in ("CronJob", "Job")]
    assert jobs
    for job in jobs:
        spec = job["spec"].get("jobTemplate", job)["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["image"] == "seal-auditor"
        assert container["command"] == ["seal"]
        assert "--changed-since" in container["args"]
