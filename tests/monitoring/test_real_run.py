"""Every panel of every dashboard shows something of a real run: real services, a real Prometheus, tiny models."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.monitored_run import Watched, monitored
from tools.dashboards.__main__ import DASHBOARDS
from tools.dashboards.panels import Panel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

# What Grafana puts in place of a dashboard's variables.
CHOSEN = {"$namespace": ".*", "$job": ".*", "$window": "10m", "$__rate_interval": "10m"}
# The launcher's services speak plain text to one another, and have no certificates.
WITH_TLS_ALONE = {"Certificates valid for"}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel.title}")
    for name, board in DASHBOARDS.items()
    for panel in board.panels()
    if panel.title not in WITH_TLS_ALONE
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    async with monitored(Path(tmp_path_factory.mktemp("watched"))) as run:
        yield run


def filled_in(expr: str) -> str:
    for variable, value in CHOSEN.items():
        expr = expr.replace(variable, value)
    return expr


async def test_the_run_taught_something_and_was_scraped_to_its_end(watched: Watched) -> None:
    assert watched.prometheus.healthy() == {"teacher", "student", "auditor"}
    states = [edit["state"] for edit in watched.edits]
    assert "EDIT_STATE_ACCEPTED" in states
    (series,) = watched.prometheus.query('seal_edits_total{verdict="accepted"}')
    assert series.points[-1][1] == states.count("EDIT_STATE_ACCEPTED")


@pytest.mark.parametrize("panel", PANELS)
async def test_a_panel_shows_figures(watched: Watched, panel: Panel) -> None:
    for query in panel.queries:
        series = watched.prometheus.query(filled_in(query.expr))
        assert any(math.isfinite(value) for one in series for _, value in one.points), query.expr
