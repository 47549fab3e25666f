"""Rule files and their tests, read: names of alerts and records, and what an expression asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy" / "monitoring" / "rules").glob("*.yaml"))
TESTS = sorted((ROOT / "tests" / "monitoring" / "rules").glob("*_test.yaml"))

STRING = re.compile(r"\"[^\"]*\"")
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right) *\([^)]*\)")
RANGE = re.compile(r"\[[^\]]*\]")
SELECTOR = re.compile(r"(?<![\w:])([a-zA-Z_:][\w:]*)(?![\w:])(?!\s*\()\s*(\{[^}]*\})?")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
OPERATORS = {"and", "or", "unless", "bool"}


@dataclass(frozen=True)
class Selector:
    """A series that an expression asks for, and the labels that it matches."""

    name: str
    labels: frozenset[str]


def rules() -> list[dict[str, Any]]:
    """All rules of all files."""
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def checks() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name of the test, one question and its expected samples) of all promtool tests."""
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for check in test["promql_expr_test"]:
                yield test["name"], check


def selectors(expression: str) -> set[Selector]:
    """What an expression of ours asks for. It knows no more of PromQL than our rules need."""
    text = GROUPING.sub(" ", RANGE.sub(" ", STRING.sub('""', expression)))
    found = set()
    for name, matchers in SELECTOR.findall(text):
        if name not in OPERATORS and not name.isdigit():
            found.add(Selector(name, frozenset(MATCHER.findall(matchers or ""))))
    return found
