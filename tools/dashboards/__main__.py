"""`python -m tools.dashboards [FOLDER]`: writes every dashboard; the same code gives the same bytes."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.dashboards import auditor, overview, student, teacher
from tools.dashboards.panels import as_json

FOLDER = Path(__file__).parents[2] / "deploy/monitoring/dashboards"
DASHBOARDS = {
    "overview": overview.DASHBOARD,
    "teacher": teacher.DASHBOARD,
    "student": student.DASHBOARD,
    "auditor": auditor.DASHBOARD,
}


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, board in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(as_json(board), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
