"""Wraps deploy/monitoring/rules for the Prometheus operator: `python -m tools.manifests.rules`.

The groups are the same, so that what promtool tests is what a cluster evaluates. A test fails when the file is stale.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

from tools.manifests.kustomize import ROOT

RULES = ROOT.parent / "monitoring" / "rules"
TARGET = ROOT / "components" / "monitoring" / "rules.yaml"
HEADER = "# Written by `python -m tools.manifests.rules` from deploy/monitoring/rules. Change that.\n"
Manifest = dict[str, Any]


def text() -> str:
    """What the file must hold: one PrometheusRule a file of rules."""
    manifests = [_wrapped(file.stem, yaml.safe_load(file.read_text())) for file in sorted(RULES.glob("*.yaml"))]
    return HEADER + yaml.safe_dump_all(manifests, sort_keys=False, width=120)


def _wrapped(name: str, rules: Manifest) -> Manifest:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"seal-{name}", "namespace": "monitoring"},
        "spec": {"groups": rules["groups"]},
    }


def main() -> None:
    TARGET.write_text(text())
    sys.stdout.write(f"{TARGET.relative_to(ROOT.parents[1])}\n")


if __name__ == "__main__":
    main()
