"""Every rule holds: promtool accepts and tests all, each asks for what is exported, each alert has a runbook entry."""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.monitoring.rules_read import ROOT, RULES, TESTS, Selector, alerts, checks, rules, selectors
from tests.monitoring.table import documented
from tools.debian import program

# What Prometheus itself and prometheus_client add to every scrape.
GIVEN = {"up": frozenset[str](), "process_start_time_seconds": frozenset[str]()}
SCRAPE_LABELS = {"job", "instance", "le"}
SEVERITIES = {"critical", "warning", "info", "none"}
ALWAYS = "SealWatchdog"


@pytest.fixture(scope="module")
def promtool() -> Path:
    return program("prometheus", "promtool")


def said(promtool: Path, *arguments: object) -> str:
    """What promtool answers; fails with it unless all is well."""
    done = subprocess.run([promtool, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_every_rule_and_the_scrape_config(promtool: Path) -> None:
    found = said(promtool, "check", "rules", "--lint-fatal", *RULES)
    assert sum(int(count) for count in re.findall(r"(\d+) rules found", found)) == len(rules())
    assert "2 rule files found" in said(promtool, "check", "config", "deploy/monitoring/prometheus/prometheus.yml")


@pytest.mark.parametrize("tests", TESTS, ids=lambda path: str(path.stem))
def test_promtool_finds_that_rules_do_what_their_tests_say(promtool: Path, tests: Path) -> None:
    said(promtool, "test", "rules", tests)


@pytest.mark.parametrize("alert", [alert["alert"] for alert in alerts()])
def test_every_alert_is_seen_firing_and_silent(alert: str) -> None:
    outcomes = {bool(check["exp_samples"]) for _, check in checks() if f'alertname="{alert}"' in check["expr"]}
    assert outcomes == ({True} if alert == ALWAYS else {True, False})


def test_every_recorded_series_is_tested() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    tested = {asked.name for _, check in checks() for asked in selectors(check["expr"]) if check["exp_samples"]}
    assert recorded - tested == set()


def test_a_test_of_an_alert_asks_for_that_alert() -> None:
    wrong = [name for name, check in checks() if "ALERTS" in check["expr"] and f'"{name}"' not in check["expr"]]
    assert wrong == []


def test_every_rule_asks_for_series_and_labels_that_are_exported() -> None:
    known = dict(GIVEN)
    for metric in documented():
        known |= dict.fromkeys(metric.series, frozenset(metric.labels))
    for rule in rules():
        if "record" in rule:
            known[rule["record"]] = frozenset(kept_labels(rule["record"]))
    for rule in rules():
        for asked in selectors(rule["expr"]):
            assert asked.name in known, f"{name_of(rule)}: {asked.name} is not exported (docs/metrics.md)"
            unknown = asked.labels - known[asked.name] - SCRAPE_LABELS
            assert not unknown, f"{name_of(rule)}: {asked.name} has no label {unknown}"


def kept_labels(record: str) -> set[str]:
    """The labels that a recorded series is said to keep; `method` and `code` stand for what gRPC calls them."""
    level = record.partition(":")[0]
    names = {"method": ("grpc_service", "grpc_method"), "code": ("grpc_code",)}
    return {label for part in level.split("_") for label in names.get(part, (part,))}


def name_of(rule: dict[str, str]) -> str:
    return rule.get("alert") or rule["record"]


def test_what_an_expression_asks_for_is_read_from_it() -> None:
    asked = selectors(
        'sum by (a, b) (rate(x_total{c=~"d|e", f!="g"}[5m])) / on (h) (y:z:w > 0.5) or absent(up{job="t"})'
    )
    assert asked == {
        Selector("x_total", frozenset({"c", "f"})),
        Selector("y:z:w", frozenset()),
        Selector("up", frozenset({"job"})),
    }


@pytest.mark.parametrize("rule", alerts(), ids=name_of)
def test_every_alert_says_what_is_why_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["annotations"].keys() == {"summary", "why", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{str(rule['alert']).lower()}"


def test_every_recorded_series_says_why() -> None:
    lines = next(path for path in RULES if path.stem == "recording").read_text().splitlines()
    silent = [line for before, line in pairwise(lines) if "- record:" in line and "#" not in before]
    assert silent == []


def test_the_runbook_has_an_entry_for_every_alert_and_for_nothing_else() -> None:
    entries = re.findall(r"^### (Seal\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(entries) == sorted(rule["alert"] for rule in alerts())


def test_every_link_within_the_runbook_leads_somewhere() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - anchors == set()
