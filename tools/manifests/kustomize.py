"""Renders what deploy/k8s holds, with `kubectl kustomize`, and says which components an overlay is made of."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml

from common.boundary.allow_table import edges

ROOT = Path(__file__).parents[2] / "deploy" / "k8s"
Manifest = dict[str, Any]


class RenderingFailed(Exception):
    """kubectl says why."""


def overlays() -> list[str]:
    """Names of all overlays, in order."""
    return sorted(path.parent.name for path in (ROOT / "overlays").glob("*/kustomization.yaml"))


@functools.cache
def _text(folder: Path) -> str:
    command = ["kubectl", "kustomize", str(folder), "--load-restrictor=LoadRestrictionsNone"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RenderingFailed(f"{folder}: {done.stderr.strip()}")
    return done.stdout


def rendered(overlay: str) -> list[Manifest]:
    """Every manifest of an overlay, fresh objects each time. Raises RenderingFailed."""
    return rendered_folder(ROOT / "overlays" / overlay)


def rendered_folder(folder: Path) -> list[Manifest]:
    """Every manifest of any kustomization."""
    return [manifest for manifest in yaml.safe_load_all(_text(folder)) if manifest]


def components(overlay: str) -> set[str]:
    """Names of the components that an overlay takes, directly or by what it is built on."""
    return _components(ROOT / "overlays" / overlay)


def _components(folder: Path) -> set[str]:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    named = [(folder / entry).resolve() for entry in kustomization.get("components", [])]
    below = [(folder / entry).resolve() for entry in kustomization.get("resources", [])]
    found = {path.name for path in named}
    return found.union(*(_components(path) for path in [*named, *below] if path.is_dir()))


def opened_by(overlay: str) -> set[tuple[str, str, int, str]]:
    """What the allow table opens in an overlay: (source, target, port, transport)."""
    taken = components(overlay) | {""}
    return {
        (str(edge.source), str(edge.target), edge.port, str(edge.transport))
        for edge in edges()
        if edge.component in taken
    }
