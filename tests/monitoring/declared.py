"""`python -m tests.monitoring.declared SERVICE`: the metrics of a service's process, as JSON, from its own registry.

A process of its own for each: in the tests' own one every service's metrics are there.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

# What a service imports at its start, and what it imports once it works.
MODULES = {
    "teacher": ("teacher.__main__", "teacher.servicer", "teacher.teacher", "teacher.backends.transformers_backend"),
    "student": ("student.__main__", "student.servicer", "student.student", "student.vllm_answers"),
    "auditor": ("auditor.__main__",),
}
OURS = ("seal_", "grpc_")


def declared(registry: CollectorRegistry) -> Iterator[tuple[str, str, list[str]]]:
    """(name as it is exported, type, labels) of every metric that is ours."""
    collectors: dict[Any, list[str]] = registry._collector_to_names
    for collector in collectors:
        for metric in collector.describe() if hasattr(collector, "describe") else ():
            if metric.name.startswith(OURS):
                name = f"{metric.name}_total" if metric.type == "counter" else metric.name
                yield name, metric.type, sorted(collector._labelnames)


def main(service: str) -> None:
    for name in MODULES[service]:
        importlib.import_module(name)
    found = [*declared(REGISTRY)]
    if service == "auditor":
        found += declared(importlib.import_module("auditor.metrics").LEDGER)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
