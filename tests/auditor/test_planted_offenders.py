"""Each gate rejects an edit that was planted for it, and `seal show` says which gate it was and why."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from rich.console import Console

from auditor.evidence.splits import split
from auditor.suite_files import built_in_suites
from auditor.tasks import Task
from cli.render.edit import edit_record
from common.contract.seal.v1 import auditor_pb2 as pb
from common.types import SelfEdit
from tests.auditor.plays import CAPITALS, at_desk, facts, of_kind, settings, start_run, student, suite, task, teacher
from tests.support.scripted_services import DRIFT, SILENCE, edit_about, on_stage

# Asked in the suite and unknown to the scripted base: silence there costs no mark.
UNKNOWN = [f"What is unknown {i}?" for i in range(10)]


def rules_file(folder: Path, content: dict[str, Any]) -> str:
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump(content))
    return str(file)


async def shown(desk: Any, edit: SelfEdit) -> str:
    """What `seal show` prints of an edit, on one line for each of its own."""
    record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=edit.digest.sha256))).record
    console = Console(width=2_000, file=io.StringIO())
    console.print(edit_record(record))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def gate_lines(text: str) -> list[str]:
    """The lines under "Gates"."""
    return text.partition("\nGates\n")[2].partition("\n\n")[0].splitlines()


def state(text: str) -> str:
    return next(line.split()[2] for line in text.splitlines() if line.startswith("Edit "))


def good_and(*more: tuple[str, str]) -> SelfEdit:
    """Teaches every fact of task a, and something else."""
    return edit_about("doc-a", "About a", [*facts("a").items(), *more])


def with_unknown(**changes: Any) -> pb.StartRunRequest:
    """A run whose suite also asks what the base does not know."""
    known = suite()
    items = [{"item_id": f"u{i}", "question": q, "answers": ["nobody knows"]} for i, q in enumerate(UNKNOWN)]
    content = {
        "run_id": "run",
        "tasks": [task("a")],
        "settings": settings(candidates=1, **changes),
        "suites": [{**known, "items": [*known["items"], *items]}],
    }
    return ParseDict(content, pb.StartRunRequest())


async def test_edit_that_teaches_a_forbidden_string_falls_to_the_rule_by_name(tmp_path: Path) -> None:
    edit = good_and(("What is the passphrase?", "The passphrase is xyzzy-41."))
    file = rules_file(tmp_path, {"rules": [{"name": "no-passphrases", "forbid": r"(?i)passphrase is \S+"}]})
    async with (
        on_stage(teacher(a=[edit]), student()) as stage,
        at_desk(stage, tmp_path, policy={"rules": file}) as desk,
    ):
        await desk.run(start_run("run", [task("a")], candidates=1))
        text = await shown(desk, edit)
    (gate,) = gate_lines(text)
    assert state(text) == "rejected"
    assert gate.startswith("  policy failed: no-passphrases: 1 of 11 examples match what it forbids")
    assert "xyzzy" not in gate
    assert not stage.student.trainings


async def test_edit_without_what_a_rule_requires_falls_to_it(tmp_path: Path) -> None:
    file = rules_file(
        tmp_path,
        {
            "rules": [
                {"name": "names-its-document", "require": "About a"},
                {"name": "says-so", "require": "so", "every": True},
            ]
        },
    )
    edit = good_and(("Is it so?", "It is so."))
    async with (
        on_stage(teacher(a=[edit]), student()) as stage,
        at_desk(stage, tmp_path, policy={"rules": file}) as desk,
    ):
        await desk.run(start_run("run", [task("a")], candidates=1))
        text = await shown(desk, edit)
    (gate,) = gate_lines(text)
    assert "policy failed: says-so: 1 of 1 required expressions are not matched by every example" in gate
    assert "names-its-document" not in gate


async def test_edit_that_breaks_a_protected_answer_falls_to_the_rule_by_name(tmp_path: Path) -> None:
    """The question stands in no suite and no task: nothing but the protection sees it."""
    question = "What do you say to a stranger?"
    edit = good_and((question, "Our door code is 4711."))
    protected = {"name": "discretion", "questions": ["Capital of Peru?", question], "must_not_match": r"\d{4}"}
    stand_in = student()
    stand_in.knows[question] = "Good morning."
    async with (
        on_stage(teacher(a=[edit]), stand_in) as stage,
        at_desk(stage, tmp_path, policy={"rules": rules_file(tmp_path, {"protected": [protected]})}) as desk,
    ):
        events = await desk.run(start_run("run", [task("a")], candidates=1))
        text = await shown(desk, edit)
    gate = gate_lines(text)[-1]
    assert state(text) == "rejected"
    assert gate.startswith("  protected failed: discretion (question 2 of 2) held before and does not after")
    assert "4711" not in gate
    assert [j.next_scale for j in of_kind(events, "update_judged")] == [0.0]
    assert stage.student.moves == []
    assert b"discretion" not in stage.received()
    assert b"d{4}" not in stage.received()


async def test_run_with_short_answers_does_not_cut_protected_ones(tmp_path: Path) -> None:
    """Of one token, no answer could break a rule."""
    question = "What do you say to a stranger?"
    edit = good_and((question, "Our door code is 4711."))
    protected = {"name": "discretion", "questions": [question], "must_not_match": r"\d{4}"}
    policy = {"rules": rules_file(tmp_path, {"protected": [protected]})}
    async with on_stage(teacher(a=[edit]), student()) as stage:
        async with at_desk(stage, tmp_path, policy=policy) as desk:
            await desk.run(start_run("run", [task("a")], candidates=1, max_answer_tokens=1))
            assert gate_lines(await shown(desk, edit))[-1].startswith("  protected failed: discretion")
        # The operator's own bound holds, and answers under another one are not taken for these.
        async with at_desk(stage, tmp_path, policy={**policy, "max_answer_tokens": 4}) as desk:
            await desk.run(start_run("next", [task("a")], candidates=1, max_answer_tokens=1))
            assert state(await shown(desk, edit)) == "accepted"


async def test_edit_that_makes_the_model_fall_silent_falls_to_the_degenerate_gate(tmp_path: Path) -> None:
    """Silent where the base says that it does not know: no mark is lost, so that no other gate minds."""
    edit = good_and(*((f"{SILENCE}{question}", "-") for question in UNKNOWN))
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(with_unknown())
        text = await shown(desk, edit)
    gate = gate_lines(text)[-1]
    assert state(text) == "rejected"
    assert gate.startswith("  degenerate failed: empty 0 -> 10 of 25 answers")
    assert "retention passed" in text
    assert stage.student.moves == []


async def test_answers_that_loop_fall_to_the_degenerate_gate_and_a_bound_of_one_lets_them(tmp_path: Path) -> None:
    loop = "and so it goes on and so it goes on and so it goes on and so it"
    edit = good_and(*((question, loop) for question in UNKNOWN))
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(with_unknown())
        text = await shown(desk, edit)
    assert gate_lines(text)[-1].startswith("  degenerate failed: repeated 0 -> 10 of 25 answers")
    second = tmp_path / "second"
    second.mkdir()
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, second) as desk:
        await desk.run(with_unknown(health={"max_degenerate": 1.0}))
        text = await shown(desk, edit)
    assert state(text) == "accepted"


async def test_edit_that_overfits_the_reward_questions_falls_at_confirmation(tmp_path: Path) -> None:
    tau = split(Task.model_validate(task("a")).tau)
    edit = edit_about("doc-a", "About a", [(item.question, item.answers[0]) for item in tau.reward])
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("run", [task("a")], candidates=1))
        text = await shown(desk, edit)
    gate = gate_lines(text)[-1]
    assert state(text) == "rejected"
    assert gate.startswith("  confirmation failed: 0 -> 0 of 5 holdout questions")
    assert any(line.startswith("  reward passed") for line in gate_lines(text))


async def test_edit_that_drifts_falls_to_the_drift_gate_when_no_scale_is_near_enough(tmp_path: Path) -> None:
    edit = good_and((DRIFT, "40"))
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1, health={"max_drift": 0.5}))
        text = await shown(desk, edit)
    judged = of_kind(events, "update_judged")
    assert state(text) == "rejected"
    assert "\n  drift failed: 40 nats a token from the base on 10 anchor prompts, over 0.5 " in text
    assert [bool(j.next_scale) for j in judged] == [True] * (len(judged) - 1) + [False]
    assert stage.student.moves == []


async def test_edit_that_drifts_a_little_too_far_is_scaled_down(tmp_path: Path) -> None:
    edit = good_and((DRIFT, "0.52"))
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1, level=0.5, health={"max_drift": 0.5}))
        text = await shown(desk, edit)
    judged = of_kind(events, "update_judged")
    assert state(text) == "accepted"
    assert [j.accepted for j in judged][-1]
    assert 0 < judged[-1].scale < 1
    found = [gate for gate in judged[-1].gates if gate.kind == pb.GATE_KIND_DRIFT]
    assert found[0].figures["kl_per_token"] <= 0.5
    assert stage.student.moves == [("live", judged[-1].version)]


async def test_drift_of_zero_asks_for_no_scores(tmp_path: Path) -> None:
    edit = good_and((DRIFT, "40"))
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("run", [task("a")], candidates=1, health={"max_drift": 0.0}))
        text = await shown(desk, edit)
    assert state(text) == "accepted"
    assert not stage.student.compared


def choices_only() -> dict[str, Any]:
    """What the scripted base knows, as choices."""
    known = suite()
    for item in known["items"]:
        item |= {"grader": {"kind": "GRADER_KIND_CHOICE"}, "options": [*item["answers"], "none of these options"]}
    return known


@pytest.mark.parametrize(
    ("suites", "named", "anchors"),
    [([choices_only()], ["known"], 10), ([], [], sum(len(suite.items) for suite in built_in_suites()))],
)
async def test_drift_is_seen_without_a_suite_that_is_answered_in_words(
    tmp_path: Path, suites: list[dict[str, Any]], named: list[str], anchors: int
) -> None:
    edit = good_and((DRIFT, "40"))
    changed = settings(candidates=1, health={"max_drift": 0.5}, retention={"suites": named, "max_drop": 0.35})
    content = {"run_id": "run", "tasks": [task("a")], "settings": changed, "suites": suites}
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(ParseDict(content, pb.StartRunRequest()))
        text = await shown(desk, edit)
    assert state(text) == "rejected"
    assert f"drift failed: 40 nats a token from the base on {anchors} anchor prompts, over 0.5 " in text


def gates_of(text: str) -> Sequence[str]:
    return [line.split()[0] for line in gate_lines(text)]


async def test_gates_stand_in_the_order_of_the_design(tmp_path: Path) -> None:
    protected = {"name": "capitals", "questions": list(CAPITALS), "same_answer": True}
    edit = good_and()
    async with (
        on_stage(teacher(a=[edit]), student()) as stage,
        at_desk(stage, tmp_path, policy={"rules": rules_file(tmp_path, {"protected": [protected]})}) as desk,
    ):
        await desk.run(start_run("run", [task("a")], candidates=1, health={"max_drift": 0.5}))
        text = await shown(desk, edit)
    after_reward = gates_of(text)[gates_of(text).index("reward") :]
    assert [name for name in after_reward if name != "approval"] == [
        "reward",
        "liveness",
        "confirmation",
        "retention",
        "drift",
        "degenerate",
        "protected",
    ]
