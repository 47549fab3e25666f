"""`make manifests`: renders every overlay, validates it, runs checkov, and compares what its policies open.

Runs in the environment of requirements/checks.txt. Errors go to standard error, a line each; the last line of standard
output is {"overlays", "schema_errors", "checkov_failed", "forbidden_edges_open"}. Exit status 1 when anything is wrong.
"""

from __future__ import annotations

import json
import sys

from tools.manifests.checkov import failed_checks
from tools.manifests.evaluate import closed_edges, open_edges
from tools.manifests.kustomize import opened_by, overlays, rendered
from tools.manifests.schemas import errors


def main() -> int:
    counts = {"overlays": 0, "schema_errors": 0, "checkov_failed": 0, "forbidden_edges_open": 0}
    refused = 0
    for overlay in overlays():
        manifests = rendered(overlay)
        allowed = opened_by(overlay)
        invalid = list(errors(manifests))
        failed = failed_checks(overlay, manifests)
        forbidden = sorted(open_edges(manifests) - allowed)
        missing = sorted(closed_edges(manifests) & allowed)
        _say(overlay, invalid)
        _say(overlay, failed)
        _say(overlay, [f"open, and no allowed edge: {edge}" for edge in forbidden])
        _say(overlay, [f"allowed, and closed: {edge}" for edge in missing])
        sys.stderr.write(f"{overlay}: {len(manifests)} manifests, {len(allowed)} edges\n")
        counts["overlays"] += 1
        counts["schema_errors"] += len(invalid)
        counts["checkov_failed"] += len(failed)
        counts["forbidden_edges_open"] += len(forbidden)
        refused += len(missing)
    sys.stdout.write(json.dumps(counts) + "\n")
    wrong = sum(counts.values()) - counts["overlays"] + refused
    return 1 if wrong or not counts["overlays"] else 0


def _say(overlay: str, lines: list[str]) -> None:
    for line in lines:
        sys.stderr.write(f"{overlay}: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
