"""A cluster evaluates the rules that promtool tests, and shows the dashboards that stand in the repository."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from common.boundary.allow_table import METRICS_PORTS
from tests.deploy.cluster import NAME, of_kind, pods
from tools.manifests import rules
from tools.manifests.kustomize import ROOT, rendered

MONITORING = ROOT.parent / "monitoring"


def test_the_wrapped_rules_are_the_rules() -> None:
    assert rules.TARGET.read_text() == rules.text(), "run `python -m tools.manifests.rules`"
    wrapped = [
        group for found in of_kind(rendered("production"), "PrometheusRule") for group in found["spec"]["groups"]
    ]
    written = [
        group for file in MONITORING.glob("rules/*.yaml") for group in yaml.safe_load(file.read_text())["groups"]
    ]
    assert sorted(wrapped, key=_name) == sorted(written, key=_name)


def _name(group: dict[str, Any]) -> str:
    return str(group["name"])


def test_every_dashboard_is_shown() -> None:
    shown = {
        file: json.loads(text)
        for found in of_kind(rendered("production"), "ConfigMap")
        if found["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
        for file, text in found["data"].items()
    }
    assert shown == {file.name: json.loads(file.read_text()) for file in MONITORING.glob("dashboards/*.json")}


def test_pods_are_scraped_as_the_jobs_that_the_rules_name() -> None:
    manifests = rendered("production")
    jobs = {monitor["spec"]["jobLabel"] for monitor in of_kind(manifests, "PodMonitor")}
    assert jobs == {NAME}
    scraped = {pod.labels[NAME] for pod in pods(manifests) if "metrics" in pod.ports}
    named = {
        job
        for found in of_kind(manifests, "PrometheusRule")
        for jobs_ in re.findall(r'job=~?"([a-z|]+)"', yaml.safe_dump(found["spec"]))
        for job in jobs_.split("|")
    }
    assert named <= scraped == set(map(str, METRICS_PORTS))
