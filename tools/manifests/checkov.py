"""Runs checkov over rendered manifests, offline. Checks that are left out stand here, each with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

# By overlay; "" is every overlay.
SKIPPED: Mapping[str, Mapping[str, str]] = {
    "": {
        "CKV_K8S_43": "digest of images: the project publishes none; whoever builds them writes digests down with"
        " `kustomize edit set image` (docs/deploy.md)",
    },
    "local": {
        "CKV_K8S_15": "pull policy: images are loaded into the node of a local cluster, which has no registry",
    },
}


class CheckovFailed(Exception):
    """It did not run to its end."""


def failed_checks(overlay: str, manifests: list[Manifest]) -> list[str]:
    """One line a failed check. Raises CheckovFailed."""
    skipped = ",".join([*SKIPPED[""], *SKIPPED.get(overlay, {})])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{overlay}.yaml")
        file.write_text(yaml.safe_dump_all(manifests))
        command = ["checkov", "--framework", "kubernetes", "--skip-download", "--quiet", "--compact"]
        command += ["--output", "json", "--skip-check", skipped, "--file", str(file)]
        command[0] = str(Path(sys.executable).with_name("checkov"))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise CheckovFailed(f"checkov: {done.stderr.strip()[-500:] or done.stdout[-500:]}") from None
    if report.get("results") is None or report["summary"]["passed"] == 0:
        raise CheckovFailed(f"checkov looked at nothing in {overlay}")
    return [
        f"{check['check_id']} {check['resource']}: {check['check_name']}"
        for check in report["results"]["failed_checks"]
    ]
