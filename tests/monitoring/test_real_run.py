"""What a real run shows in every panel, table and rule: real services, a real Prometheus, tiny models."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.monitoring.rules_read import rules
from tests.monitoring.table import SERVICES, documented, scraped
from tests.support.monitored_run import DOCUMENTS, Watched, monitored
from tools.dashboards.__main__ import DASHBOARDS
from tools.dashboards.panels import Panel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

# What Grafana puts in place of a dashboard's variables.
CHOSEN = {"$namespace": ".*", "$job": ".*", "$window": "10m", "$__rate_interval": "10m"}
PANELS = [pytest.param(panel, id=f"{name}: {panel.title}") for name, b in DASHBOARDS.items() for panel in b.panels()]


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


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_exports_its_rows_of_the_table_and_nothing_else(watched: Watched, service: str) -> None:
    rows = {row.name: row for row in documented() if service in row.services}
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in await asyncio.to_thread(scraped, watched.metrics[service])
    }
    assert set(families) == set(rows)
    for name, family in families.items():
        assert family.type == rows[name].type
        assert {s.name for s in family.samples} in ({*rows[name].series}, set()), name
        assert {frozenset(s.labels) - {"le"} for s in family.samples} <= {frozenset(rows[name].labels)}, name


async def test_every_rule_can_be_evaluated_on_what_a_real_run_exports(watched: Watched) -> None:
    await asyncio.to_thread(watched.prometheus.until, "job:grpc_server_handled:rate5m")
    found = watched.prometheus.rules()
    assert len(found) == len(rules())
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []


@pytest.mark.parametrize("record", [rule["record"] for rule in rules() if "record" in rule])
async def test_a_recorded_series_is_there_after_a_real_run(watched: Watched, record: str) -> None:
    await asyncio.to_thread(watched.prometheus.until, record)


async def test_nothing_but_the_watchdog_fires_in_a_run_that_went_well(watched: Watched) -> None:
    firing = {s.labels["alertname"] for s in watched.prometheus.query('ALERTS{alertstate="firing"}')}
    assert firing == {"SealWatchdog"}


async def test_one_trace_spans_the_three_processes(watched: Watched) -> None:
    collector = watched.collector
    for last in ("write", "training", "update"):
        await asyncio.to_thread(collector.until, last)
    (task, *_) = [one for one in collector.named("task") if one.attributes["seal.task"] == "inn"]
    way = [one for one in collector.spans if one.trace == task.trace]
    assert {one.service for one in way} == {"seal-teacher", "seal-student", "seal-auditor"}
    by_id = {one.span: one for one in way}
    for name, service, above in (
        ("write", "seal-teacher", "seal.v1.TeacherService/ProposeEdits"),
        ("training", "seal-student", "seal.v1.StudentService/Train"),
        ("seal.v1.StudentService/Train", "seal-student", "train"),
    ):
        found = [one for one in way if one.name == name and one.parent in by_id]
        assert found, name
        assert {one.service for one in found} == {service}
        assert above in {by_id[one.parent].name for one in found}


async def test_no_text_of_the_run_is_in_its_traces(watched: Watched) -> None:
    await asyncio.to_thread(watched.collector.until, "task")
    edits = [edit["edit"]["sha256"].encode() for edit in watched.edits]
    assert any(edit in watched.collector.received for edit in edits), "it would be found if it were sent"
    for title, facts in DOCUMENTS.values():
        for text in (title, *facts, *facts.values()):
            assert text.encode() not in watched.collector.received, text
