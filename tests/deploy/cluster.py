"""What several tests ask of rendered manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from auditor.config import AuditorConfig
from common.config import ServiceConfig, resolve
from student.config import StudentConfig
from teacher.config import TeacherConfig
from tools.manifests.evaluate import pod_templates
from tools.manifests.kustomize import overlays

Manifest = dict[str, Any]
OVERLAYS = overlays()
CONFIGS: dict[str, type[ServiceConfig]] = {
    "teacher": TeacherConfig,
    "student": StudentConfig,
    "auditor": AuditorConfig,
}
NAME = "app.kubernetes.io/name"


@dataclass(frozen=True)
class Pod:
    """A pod template and what it belongs to."""

    workload: Manifest
    template: Manifest

    @property
    def name(self) -> str:
        return str(self.workload["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.workload["metadata"]["namespace"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.template["metadata"]["labels"])

    @property
    def spec(self) -> Manifest:
        spec: Manifest = self.template["spec"]
        return spec

    @property
    def container(self) -> Manifest:
        [container] = self.spec["containers"]
        found: Manifest = container
        return found

    @property
    def environment(self) -> dict[str, str]:
        return {entry["name"]: entry["value"] for entry in self.container.get("env", [])}

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    @property
    def mounts(self) -> dict[str, Manifest]:
        return {mount["mountPath"]: mount for mount in self.container["volumeMounts"]}

    @property
    def volumes(self) -> dict[str, Manifest]:
        claimed = {claim["metadata"]["name"]: claim for claim in self.workload["spec"].get("volumeClaimTemplates", [])}
        return claimed | {volume["name"]: volume for volume in self.spec["volumes"]}

    def writable(self, path: str) -> bool:
        """Whether a file may be made at `path`: the deepest mount over it is a volume of its own, not read-only."""
        over = [mount for mount in self.mounts if Path(path).is_relative_to(mount)]
        return bool(over) and not self.mounts[max(over, key=len)].get("readOnly", False)

    def claimed(self, path: str) -> bool:
        """Whether what is written at `path` outlives the pod."""
        over = [mount for mount in self.mounts if Path(path).is_relative_to(mount)]
        volume = self.volumes[self.mounts[max(over, key=len)]["name"]] if over else {}
        return "persistentVolumeClaim" in volume or "accessModes" in volume.get("spec", {})


def pods(manifests: list[Manifest]) -> list[Pod]:
    return [Pod(workload, template) for workload, template in pod_templates(manifests)]


def services(manifests: list[Manifest]) -> Iterator[tuple[Pod, ServiceConfig]]:
    """Pods of the three services with their settings, resolved as the process in the pod resolves them."""
    for pod in pods(manifests):
        service = pod.labels[NAME]
        if service in CONFIGS:
            yield pod, settings(pod, manifests)


def settings(pod: Pod, manifests: list[Manifest]) -> ServiceConfig:
    service = pod.labels[NAME]
    mounted = pod.volumes["config"]["configMap"]["name"]
    [text] = [
        manifest["data"][f"{service}.yaml"]
        for manifest in of_kind(manifests, "ConfigMap")
        if manifest["metadata"]["name"] == mounted and manifest["metadata"]["namespace"] == pod.namespace
    ]
    with TemporaryDirectory() as folder:
        file = Path(folder, f"{service}.yaml")
        file.write_text(text)
        return resolve(CONFIGS[service], service, file=file, environment=pod.environment)


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]
