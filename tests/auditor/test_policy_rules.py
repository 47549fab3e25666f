"""A rules file is read or refused by place; rules are those that a run started with."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from auditor.gates.protected import Observed, protected_gate
from auditor.graders.patterns import SECONDS
from auditor.ledger.store import Ledger
from auditor.policy.config import PolicyConfig
from auditor.policy.rules import Protected, Rule
from auditor.policy.rules_file import configured_rules, read_rules
from common.errors import InvalidConfig, NotPossible
from tests.auditor.plays import at_desk, kinds, of_kind, start_run, student, task, teacher, teaching
from tests.auditor.test_planted_offenders import gate_lines, rules_file, shown, state
from tests.auditor.test_resume import die_at
from tests.support.scripted_services import edit_about, on_stage

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules:\n  - name: [x", "line 2"),
        ("- name: x\n", "expected rules, protected, or both"),
        ("rulez: []\n", "rulez: unknown key"),
        ("max_answer_tokens: 1\n", "max_answer_tokens: unknown key"),
        ("rules: [{name: x}]\n", "rules[0]: says neither what it forbids nor what it requires"),
        ("rules: [{name: x, forbid: '('}]\n", "rules[0].forbid: expression 1 is not a regular expression"),
        ("rules: [{name: x, forbid: a, forbids: b}]\n", "rules[0].forbids: unknown key"),
        ("rules: [{name: x, forbid: a, every: true}]\n", "rules[0]: every says how many"),
        ("rules: [{name: 'a b', forbid: a}]\n", "rules[0].name"),
        ("protected: [{name: x, questions: q}]\n", "protected[0]: asserts nothing"),
        ("protected: [{name: x, must_contain: y}]\n", "protected[0].questions"),
        ("protected: [{name: x, questions: q, same_answer: true, if_held: true}]\n", "protected[0]: if_held"),
        (
            "rules: [{name: x, forbid: [a, '(?i)(\\w+\\s?)+:\\s*secret']}]\n",
            "rule x: forbid: expression 2 takes too long",
        ),
        (
            "protected: [{name: y, questions: q, must_not_match: '(a|aa)+$'}]\n",
            "rule y: must_not_match: expression 1 takes too long",
        ),
        (
            "rules: [{name: x, forbid: a}]\nprotected: [{name: x, questions: q, must_contain: y}]\n",
            "two rules are named x",
        ),
    ],
)
def test_malformed_rules_file_is_refused_by_file_and_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(InvalidConfig) as refused:
        read_rules(file)
    assert str(file) in refused.value.message
    assert said in refused.value.message


def test_auditor_refuses_to_start_with_a_malformed_rules_file(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{name: x, forbid: '('}]\n")
    settings = [f"policy.rules={file}", f"database=sqlite:///{tmp_path / 'ledger.db'}", "listen=127.0.0.1:0"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "auditor", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"{file}: rules[0].forbid: expression 1" in done.stderr
    assert not (tmp_path / "ledger.db").exists()


def test_example_file_is_read() -> None:
    rules = read_rules(ROOT / "examples" / "policy" / "rules.yaml")
    assert {rule.name for rule in rules.rules} >= {"no-credentials"}
    assert rules.protected


def test_what_the_configuration_forbids_stands_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{name: x, forbid: a}]\n")
    rules = configured_rules(PolicyConfig(rules=file, forbidden=("b",)))
    assert [rule.name for rule in rules.rules] == ["policy.forbidden[0]", "x"]


def test_what_the_configuration_forbids_may_not_run_away_either() -> None:
    with pytest.raises(InvalidConfig, match=r"policy\.forbidden\[1\]"):
        configured_rules(PolicyConfig(forbidden=("b", "(a|aa)+$")))


# No trial has a run of this letter: it escapes them, as some expressions will.
ESCAPES, SLOW = "(é|éé)+$", "é" * 60 + "!"


async def test_rule_that_takes_too_long_ends_the_run_by_name_and_holds_nobody_up(tmp_path: Path) -> None:
    edit = edit_about("doc-a", "About a", [("Why?", SLOW)])
    file = rules_file(tmp_path, {"rules": [{"name": "too-clever", "forbid": ESCAPES}]})
    async with (
        on_stage(teacher(a=[edit]), student()) as stage,
        at_desk(stage, tmp_path, policy={"rules": file}) as desk,
    ):
        longest, last = 0.0, time.monotonic()

        async def tick() -> None:
            nonlocal longest, last
            while True:
                await asyncio.sleep(0.02)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()

        ticking = asyncio.create_task(tick())
        (failed,) = of_kind(await desk.run(start_run("run", [task("a")], candidates=1)), "run_failed")
        ticking.cancel()
    assert failed.reason == "RULE_TOO_SLOW"
    assert "too-clever" in failed.detail
    assert longest < SECONDS / 2


def test_protected_answer_that_takes_too_long_names_its_rule() -> None:
    with pytest.raises(NotPossible, match="rule r ") as stopped:
        rule(must_not_match=ESCAPES).holds(SLOW)
    assert stopped.value.reason == "RULE_TOO_SLOW"


async def test_resumed_run_keeps_the_rules_it_started_with(tmp_path: Path) -> None:
    """The file is rewritten while the auditor is down; the next run goes by the new one."""
    edit = teaching("a", 10)
    content: dict[str, Any] = {"rules": [{"name": "old-rule", "forbid": "a question 3"}]}
    file = rules_file(tmp_path, content)
    async with on_stage(teacher(a=[edit]), student()) as stage:
        async with at_desk(stage, tmp_path, policy={"rules": file}) as desk:
            died = die_at(desk.auditor.recorder.ledger, 5, before=False)
            await desk.stub.StartRun(start_run("run", [task("a")], candidates=1))
            await asyncio.wait_for(died.wait(), 30)
        rules_file(tmp_path, {"rules": [{"name": "new-rule", "forbid": "nothing of it"}]})
        async with at_desk(stage, tmp_path, policy={"rules": file}) as desk:
            assert kinds(await desk.watch("run"))[-1] == "run_finished"
            first = await shown(desk, edit)
            await desk.run(start_run("next", [task("a")], candidates=1))
            second = await shown(desk, edit)
    assert gate_lines(first)[0].startswith("  policy failed: old-rule")
    assert state(second) == "accepted"
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", writer=False) as ledger:
        started = [link.payload["record"]["rules"] for link in ledger.events() if link.type == "run_started"]
        assert [b"old-rule" in (ledger.payload(name) or b"") for name in started] == [True, False]


def rule(**changes: Any) -> Protected:
    return Protected.model_validate({"name": "r", "questions": ["q"], **changes})


@pytest.mark.parametrize(
    ("asserted", "before", "after", "breach"),
    [
        ({"must_contain": "paris"}, "It is  PARIS.", "Paris, of course", ""),
        ({"must_contain": "paris"}, "Paris", "Lyon", "held before and does not after"),
        ({"must_contain": ["paris", "france"]}, "Paris in France", "Paris", "held before and does not after"),
        ({"must_contain": "paris"}, "Lyon", "Lyon", "does not hold, nor did it before"),
        ({"must_contain": "paris", "if_held": True}, "Lyon", "Lyon", ""),
        ({"must_contain": "paris", "if_held": True}, "Paris", "Lyon", "held before and does not after"),
        ({"must_not_contain": "code"}, "no", "the  Code", "held before and does not after"),
        ({"must_match": r"^\d+$"}, "12", "12 or so", "held before and does not after"),
        ({"must_not_match": r"\d{4}"}, "12", "1234", "held before and does not after"),
        ({"same_answer": True}, "Good morning.", "good morning", ""),
        ({"same_answer": True}, "Good morning.", "Good evening.", "the answer changed"),
        ({"same_answer": True, "must_contain": "good"}, "Good morning.", "Bad.", "held before and does not after"),
    ],
)
def test_what_breaks_a_protected_behaviour(asserted: dict[str, Any], before: str, after: str, breach: str) -> None:
    assert rule(**asserted).breach(before, after) == breach


def test_protected_gate_says_what_it_excused_and_quotes_nothing() -> None:
    held, forgiven = rule(must_contain="yes"), rule(name="s", must_contain="secret", if_held=True)
    gate = protected_gate([Observed(held, 1, "yes", "Yes!"), Observed(forgiven, 1, "no", "never")])
    assert gate.passed
    assert (
        gate.reason == "2 answers under 2 rules are as they must be, but those that did not hold before either: s (1)"
    )
    assert (gate.figures["failed_before"], gate.figures["broken"]) == (1, 0)
    failed = protected_gate([Observed(held, 1, "yes", "xyzzy"), Observed(held, 1, "no", "xyzzy")])
    assert failed.reason == "r held before and does not after; r does not hold, nor did it before"
    many = protected_gate([Observed(held, 1, "no", "no")] * 25)
    assert many.reason.endswith("and 15 more")


def test_requirement_is_met_by_one_example_or_by_every_one() -> None:
    examples = teaching("a", 4).examples
    assert Rule(name="r", require=("a question 2",)).offence(examples) == ""
    assert Rule(name="r", require=("a question 9",)).offence(examples)
    assert Rule(name="r", require=("a question [0-3]",), every=True).offence(examples) == ""
    assert Rule(name="r", require=("a question 2",), every=True).offence(examples)
