"""The table of docs/metrics.md, and what a running service shows, read."""

from __future__ import annotations

import re
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import prometheus_client
from prometheus_client.parser import text_string_to_metric_families

from tests.monitoring.declared import OURS

ROOT = Path(__file__).parents[2]
SERVICES = ("teacher", "student", "auditor")
ROW = re.compile(
    r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| ?(?P<labels>[\w, ]*?) ?\| (?P<service>\w+) \| (?P<meaning>.+) \|$"
)


@dataclass(frozen=True, order=True)
class Metric:
    """One row. A name has one row, so one type and one set of labels."""

    name: str
    type: str
    labels: tuple[str, ...]
    services: tuple[str, ...]
    meaning: str = field(compare=False)

    @property
    def series(self) -> tuple[str, ...]:
        """The names that queries may use."""
        if self.type == "histogram":
            parts = ("bucket", "count") if "no `_sum`" in self.meaning else ("bucket", "count", "sum")
            return tuple(f"{self.name}_{part}" for part in parts)
        return (self.name,)


def documented() -> list[Metric]:
    """Every row of the table. Raises ValueError for one that cannot be read."""
    metrics = []
    lines = (ROOT / "docs" / "metrics.md").read_text().splitlines()
    for line in lines:
        if not line.startswith("| `"):
            continue
        if (row := ROW.match(line)) is None:
            raise ValueError(f"docs/metrics.md: cannot read: {line}")
        services = SERVICES if row["service"] == "all" else (row["service"],)
        labels = tuple(sorted(row["labels"].split(", "))) if row["labels"] else ()
        metrics.append(Metric(row["name"], row["type"], labels, services, row["meaning"]))
    return metrics


def scraped(target: str) -> list[prometheus_client.Metric]:
    """What the port at host:port shows, ours alone."""
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return [family for family in families if family.name.startswith(OURS)]
