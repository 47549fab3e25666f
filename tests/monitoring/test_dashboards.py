"""Dashboards are what their modules say, name metrics that exist, and explain themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.dashboards.__main__ import DASHBOARDS, FOLDER, write
from tools.dashboards.panels import SELECTED, Panel

TABLE = Path(__file__).parents[2] / "docs/metrics.md"
PANELS = [pytest.param(panel, id=f"{name}: {panel.title}") for name, b in DASHBOARDS.items() for panel in b.panels()]
# What a name in PromQL may be beside a metric: functions, keywords, labels.
METRIC = re.compile(r"([a-z_]+)\{" + re.escape(SELECTED))
OF_A_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def metrics() -> set[str]:
    return {line.split("`")[1] for line in TABLE.read_text().splitlines() if line.startswith("| `")}


def test_the_committed_files_are_what_the_modules_write(tmp_path: Path) -> None:
    write(tmp_path)
    for name in DASHBOARDS:
        fresh, committed = tmp_path / f"{name}.json", FOLDER / f"{name}.json"
        assert fresh.read_bytes() == committed.read_bytes(), "run `make dashboards` and commit what it writes"
    assert {file.stem for file in FOLDER.glob("*.json")} == set(DASHBOARDS)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_for_metrics_that_exist(panel: Panel) -> None:
    for query in panel.queries:
        named = METRIC.findall(query.expr)
        assert named, query.expr
        for metric in named:
            known = metric in metrics() or OF_A_HISTOGRAM.sub("", metric) in metrics()
            assert known or metric.startswith("process_"), f"{metric} is not in docs/metrics.md"


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows(panel: Panel) -> None:
    assert panel.tells.endswith(".")
    assert panel.unit
    for query in panel.queries:
        labels = set(re.findall(r"{{(\w+)}}", query.legend))
        assert all(label in query.expr or label in {"instance", "job"} for label in labels), query.legend


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_fill_rows_without_overlap(name: str) -> None:
    board: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in board["panels"] if panel["type"] != "row"}) == len(DASHBOARDS[name].panels())
    assert {variable["name"] for variable in board["templating"]["list"]} == {
        "datasource",
        "namespace",
        "job",
        "window",
    }
