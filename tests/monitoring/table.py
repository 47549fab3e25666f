"""The table of docs/metrics.md, read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

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

    @property
    def series(self) -> tuple[str, ...]:
        """The names that queries may use."""
        if self.type == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
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
        metrics.append(Metric(row["name"], row["type"], labels, services))
    return metrics
