"""The demo's arithmetic and its story. The figures are the scripted auditor's; a real run is tests/e2e's business."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from cli.demo import scenario
from cli.demo.choices import DemoChoices, data_folder
from cli.demo.questions import by_task, choose, result_object, verdict
from cli.demo.scenario import show
from cli.demo.sign_test import one_sided_p
from cli.failure import BadInput, Failure
from cli.settings import RunChoices
from tests.cli.scripted_auditor import ScriptedAuditor, finished_run, results

ROOT = Path(__file__).resolve().parent.parent.parent
KEYS = ["base_holdout", "live_holdout", "holdout_n", "accepted", "rejected", "retention_before", "retention_after"]


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (0, 5, 1.0), (4, 1, 6 / 32), (9, 1, 11 / 1024), (3, 3, 42 / 64)],
)
def test_the_sign_test_is_exact(better: int, worse: int, p: float) -> None:
    assert one_sided_p(better, worse) == pytest.approx(p)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_both_sides_of_the_sign_test_overlap_in_what_was_observed(better: int, worse: int) -> None:
    assert 0 < one_sided_p(better, worse) <= 1
    assert one_sided_p(better + 1, worse) <= one_sided_p(better, worse)
    assert one_sided_p(better, worse) + one_sided_p(worse, better) >= 1


def test_only_discordant_questions_count() -> None:
    found = verdict(results("1100", "1011"))
    assert (found.better, found.worse) == (2, 1)


def test_questions_are_chosen_by_rule_and_the_rule_is_told() -> None:
    chosen = choose(results("0000000", "0101101"))
    assert [question.item_id for question in chosen.questions] == ["q02", "q04", "q05"]
    assert "live version answers right" in chosen.rule
    none = choose(results("0000", "0000"))
    assert [question.item_id for question in none.questions] == ["q01", "q02", "q03"]
    assert "no holdout question right" in none.rule
    some = choose(results("0000", "0010"))
    assert [question.item_id for question in some.questions] == ["q03", "q01", "q02"]
    assert some.rule.startswith("all 1 holdout question that")
    assert choose([]).questions == ()


def test_counts_by_document() -> None:
    before, after = by_task(results("1000000", "1111000"))["faq"]
    assert (before.correct, after.correct, after.questions, after.empty) == (1, 4, 7, 3)


def test_the_result_has_exactly_its_keys() -> None:
    found = result_object(finished_run("r"), 1.234)
    assert list(found) == [*KEYS, "minutes"]
    assert found["base_holdout"] == pytest.approx(1 / 7)
    assert found["holdout_n"] == 7
    assert json.loads(json.dumps(found)) == found


def test_the_story_is_told_from_the_auditors_figures(servicer: ScriptedAuditor, target: str, tmp_path: Path) -> None:
    choices = DemoChoices(data=ROOT / "examples" / "support", documents=1, run=RunChoices(rounds=1))
    said = StringIO()
    console = Console(file=said, width=140, highlight=False)
    run = asyncio.run(show(target, choices.tasks(), choices, console))
    assert run.live_holdout.correct == 4
    story = said.getvalue()
    for expected in (
        "1 of 7",
        "4 of 7 (3 empty)",
        "3 questions turned right, 0 turned wrong",
        "p = 0.125",
        "1 accepted, 1 rejected",
        "62 of 62 before, 60 of 62 after",
        "no idea  →  (empty)",
        "the first 3 holdout questions that the live version answers right",
        "before  no idea",
        "after   figure 1",
        "3 of 3 answers are the old ones again",
    ):
        assert expected in story
    assert servicer.live == "base"


@pytest.mark.parametrize("died", [False, True])
def test_the_demo_ends_with_its_result_or_says_which_service_died(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], died: bool
) -> None:
    class Running:
        def target(self, name: str) -> str:
            return target

        async def died(self) -> Failure:
            await asyncio.sleep(0 if died else 600)
            return Failure("student was killed by signal 9")

    @asynccontextmanager
    async def up(*_: object) -> AsyncIterator[Running]:
        yield Running()

    monkeypatch.setattr(scenario, "services_up", up)
    folder = tmp_path / "new"
    choices = DemoChoices(
        data=ROOT / "examples" / "support", documents=1, run=RunChoices(rounds=1), folder=folder, json_result=True
    )
    if died:
        with pytest.raises(Failure, match="student was killed"):
            asyncio.run(scenario.demo(choices))
        return
    asyncio.run(scenario.demo(choices))
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(last) == [*KEYS, "minutes"]


def test_a_fresh_folder_goes_after_success_and_stays_after_failure() -> None:
    choices = DemoChoices(data=None, documents=None, run=RunChoices())
    with data_folder(choices) as folder:
        assert folder.is_dir()
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), data_folder(choices) as folder:
        raise ZeroDivisionError
    assert folder.exists()
    folder.rmdir()


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    choices = DemoChoices(data=None, documents=None, run=RunChoices(), folder=tmp_path)
    with pytest.raises(BadInput, match="is not empty"), data_folder(choices):
        pytest.fail("it is in use")
