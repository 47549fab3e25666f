"""What `make manifests` says of kinds that only a cluster's extensions know, and of checks that are left out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.cluster import OVERLAYS, of_kind
from tools.manifests.checkov import SKIPPED
from tools.manifests.kustomize import rendered
from tools.manifests.schemas import custom, errors

Manifest = dict[str, Any]


def _first(kind: str) -> Manifest:
    return of_kind(rendered("production"), kind)[0]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_extensions_are_what_their_schemas_say(overlay: str) -> None:
    extensions = [found for found in rendered(overlay) if f"{found['apiVersion']}/{found['kind']}" in custom()]
    assert list(errors(extensions)) == []
    assert bool(extensions) == (overlay in {"production", "two-teachers"})


def test_a_misspelt_field_is_named() -> None:
    monitor = _first("PodMonitor")
    monitor["spec"]["podMetricsEndpoints"][0]["intervall"] = "15s"
    [error] = errors([monitor])
    assert error.startswith("PodMonitor seal-auditor/auditor: spec.podMetricsEndpoints.0: ")
    assert "'intervall' was unexpected" in error


def test_a_missing_field_and_a_value_of_another_kind_are_named() -> None:
    certificate = _first("Certificate")
    del certificate["spec"]["secretName"]
    certificate["spec"]["duration"] = 168
    found = "\n".join(errors([certificate]))
    assert "'secretName' is a required property" in found
    assert "spec.duration: 168 is not of type 'string'" in found


def test_a_field_beside_the_spec_is_named() -> None:
    assert list(errors([{**_first("ScaledObject"), "specs": {}}])) == [
        "ScaledObject seal-student/student: unknown field specs"
    ]


def test_every_check_that_is_left_out_has_a_reason() -> None:
    assert SKIPPED.keys() <= {"", *OVERLAYS}
    assert all(len(reason.split()) > 5 for checks in SKIPPED.values() for reason in checks.values())
