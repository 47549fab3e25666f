"""Every command against a real server: what a person sees, what a machine reads, how it fails."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from cli.render.edit import edit_record
from common.contract.seal.v1 import auditor_pb2 as pb
from tests.cli.conftest import Seal
from tests.cli.scripted_auditor import EDIT, HASH, LIVE, OTHER, ScriptedAuditor, record, recorded_events

TASK = """\
id: faq
title: Frequently asked questions
context: The free trial lasts 22 days.
tau:
"""
ITEM = "  - {{id: q{0:02d}, question: 'How long is trial {0}?', answers: [22 days]}}\n"


def task_file(folder: Path, questions: int = 4) -> Path:
    file = folder / "faq.yaml"
    file.write_text(TASK + "".join(ITEM.format(n) for n in range(1, questions + 1)))
    return file


def test_run_shows_every_step_and_counts(asked: Seal, tmp_path: Path) -> None:
    outcome = asked("run", str(task_file(tmp_path)), "--rounds", "1")
    assert outcome.code == 0, outcome.err
    assert "baseline: base answers 0 of 7 holdout questions of faq" in outcome.out
    assert "1 of 7" in outcome.out
    assert "4 of 7" in outcome.out
    assert "1 accepted, 1 rejected" in outcome.out
    assert "[one] kept edit is too few" in outcome.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--rounds", "99999999999"),
        ("run", "--seed", "99999999999999999999999"),
        ("run", "--candidates", "0"),
        ("watch", "r", "--after", "99999999999999999999"),
        ("demo", "--candidates", "0"),
    ],
)
def test_numbers_beyond_their_range_are_refused_by_option(
    seal: Seal, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    file = (str(task_file(tmp_path)),) if arguments[0] == "run" else ()
    outcome = seal(*arguments, *file)
    assert outcome.code == 2
    assert arguments[-2] in outcome.err
    assert "Traceback" not in outcome.err


def test_run_sends_the_settings_that_were_given_and_no_others(
    asked: Seal, servicer: ScriptedAuditor, tmp_path: Path
) -> None:
    options = "--candidates 5 --filter top-k --top-k 2 --promotion consolidated --no-learn --seed 0 --run-id mine"
    recipe = (
        "--recipe rank=16 --recipe learning_rate=1e-3 --recipe target_modules=q_proj,v_proj --recipe schedule=linear"
    )
    assert asked("run", str(task_file(tmp_path)), *options.split(), *recipe.split()).code == 0
    request = servicer.requests[0]
    assert isinstance(request, pb.StartRunRequest)
    assert request.run_id == "mine"
    settings = request.settings
    assert (settings.candidates, settings.filter, settings.top_k) == (5, pb.FILTER_MODE_TOP_K, 2)
    assert settings.promotion == pb.PROMOTION_MODE_CONSOLIDATED
    assert settings.HasField("learn")
    assert not settings.learn
    assert settings.HasField("seed")
    assert not settings.HasField("rounds")
    assert not settings.HasField("retention")
    assert (settings.recipe.rank, settings.recipe.learning_rate) == (16, 1e-3)
    assert list(settings.recipe.target_modules) == ["q_proj", "v_proj"]


@pytest.mark.parametrize("word", ["depth=3", "rank", "rank=many", "schedule=steep"])
def test_a_recipe_that_is_none_is_wrong_usage(asked: Seal, tmp_path: Path, word: str) -> None:
    outcome = asked("run", str(task_file(tmp_path)), "--recipe", word)
    assert outcome.code == 2
    assert word in outcome.err


def test_a_bad_file_is_refused_before_anybody_is_asked(seal: Seal, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("id: x\ntitle: T\ncontext: C\ntau:\n  - id: q1\n    question: Q?\n    answers: []\n")
    outcome = seal("run", str(bad), "--auditor", "127.0.0.1:1")
    assert outcome.code == 2
    assert f"{bad}:7: tau[0].answers needs at least 1" in outcome.err


def test_settings_of_the_judgement_become_the_request(asked: Seal, servicer: ScriptedAuditor, tmp_path: Path) -> None:
    options = "--level 0.1 --confirmation-seeds 3 --by-lower-bound --no-racing --min-scale 0.25 --cross-split 1"
    health = "--max-drift 0.5 --max-degenerate 0.2 --anchors 0 --accept-drift"
    assert asked("run", str(task_file(tmp_path)), *options.split(), *health.split()).code == 0
    request = servicer.requests[0]
    assert isinstance(request, pb.StartRunRequest)
    settings = request.settings
    assert (settings.level, settings.confirmation_seeds, settings.min_scale) == (0.1, 3, 0.25)
    assert (settings.filter_by_lower_bound, settings.racing, settings.accept_drift) == (True, False, True)
    assert settings.HasField("racing")
    assert settings.cross_split_share == 1
    assert (settings.health.max_drift, settings.health.max_degenerate) == (0.5, 0.2)
    assert settings.health.HasField("anchors")


def test_matrix_shows_what_was_forgotten(asked: Seal) -> None:
    outcome = asked("versions", "--matrix")
    assert "3 of 7" in outcome.out
    assert "average forgetting +0.20, backward transfer -0.10" in outcome.out


def test_a_refusal_names_the_task_and_not_its_place(asked: Seal, tmp_path: Path) -> None:
    outcome = asked("run", str(task_file(tmp_path, questions=2)))
    assert outcome.code == 2
    assert "task faq: tau: too few questions" in outcome.err


def test_a_detached_run_returns_at_once(asked: Seal, servicer: ScriptedAuditor, tmp_path: Path) -> None:
    outcome = asked("run", str(task_file(tmp_path)), "--detach", "--run-id", "mine", "--json")
    assert [run["run_id"] for run in outcome.objects] == ["mine"]
    assert servicer.watched_after == []


def test_watch_as_json_is_one_event_a_line_with_stable_keys(asked: Seal) -> None:
    outcome = asked("watch", "run-1", "--json")
    assert outcome.code == 0
    recorded = [event for event in outcome.objects if event["seq"]]
    assert [event["seq"] for event in recorded] == [event.seq for event in recorded_events()]
    assert all(set(event) == {"seq", "time", "run_id", "type", "data"} for event in outcome.objects)
    trained = next(event for event in recorded if event["type"] == "candidate_trained")
    assert trained["data"]["seed"] == 2**62
    assert trained["data"]["reused"] is False
    assert recorded[0]["time"].endswith("Z")


def test_watch_without_a_name_follows_the_newest_run(asked: Seal) -> None:
    assert "run-1" in asked("watch").out


def test_a_failed_run_fails_the_command(asked: Seal, servicer: ScriptedAuditor) -> None:
    failed = pb.RunEvent(seq=99, run_id="run-1", run_failed=pb.RunFailed(reason="INTERNAL", detail="disk full"))
    servicer.events[-1] = failed
    outcome = asked("watch", "run-1")
    assert outcome.code == 1
    assert "run run-1 failed: disk full" in outcome.err


def test_lists_follow_their_pages(asked: Seal, servicer: ScriptedAuditor) -> None:
    outcome = asked("edits", "--json", "--run", "run-1")
    assert [edit["edit"]["sha256"] for edit in outcome.objects] == [EDIT, OTHER]
    assert [request.page_token for request in servicer.requests if isinstance(request, pb.ListEditsRequest)] == [
        "",
        "second",
    ]


def test_edits_can_be_narrowed_to_a_state(asked: Seal, servicer: ScriptedAuditor) -> None:
    asked("edits", "--state", "rolled-back", "--limit", "1")
    request = servicer.requests[0]
    assert isinstance(request, pb.ListEditsRequest)
    assert request.state == pb.EDIT_STATE_ROLLED_BACK


def test_show_tells_where_an_edit_came_from_and_what_it_did(asked: Seal) -> None:
    out = asked("show", "3fa9c1").out
    for expected in (
        EDIT,
        "Frequently asked [questions]",
        "gain above [threshold]",
        "small (vllm)",
        "self-qa",
        "The trial lasts 22 days.",
        "user: How long? | assistant: 22 days",
        "rank 32, learning rate 0.001, schedule linear",
        LIVE,
        "4.8 MiB",
        "reward passed: gain (gain 0.43)",
        "What is figure 2?",
        "Forgotten",
        HASH,
    ):
        assert expected in out


def test_show_marks_where_a_judge_and_the_words_disagree() -> None:
    told = record()
    agreed, disputed = told.reward_results[1], told.reward_results[2]
    agreed.lexical_before, agreed.lexical_after = 0, 1
    disputed.lexical_before, disputed.lexical_after = 0, 0
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(edit_record(told))
    shown = console.export_text()
    assert shown.count("judge; by words") == shown.count("judge; by words 0 → 0") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["runs"],
        ["edits"],
        ["versions"],
        ["status"],
        ["verify"],
        ["show", "3fa9c1"],
        ["cancel", "run-1"],
        ["ask", "What is figure 1?"],
        ["approve", "3fa9c1"],
        ["reject", "3fa9c1"],
        ["rollback"],
    ],
)
def test_every_command_speaks_to_people_and_to_machines(asked: Seal, command: list[str]) -> None:
    told = asked(*command)
    assert told.code == 0, told.err
    assert told.out.strip()
    read = asked(*command, "--json")
    assert read.code == 0
    assert read.err == ""
    assert all(isinstance(item, dict) for item in read.objects)
    assert read.objects


def test_ask_names_the_version_beside_the_answer(asked: Seal) -> None:
    outcome = asked("ask", "What is figure 1?", "--version", "base")
    assert outcome.out.strip() == "no idea"
    assert "version base" in outcome.err


def test_a_decision_carries_a_reason_and_an_id_of_its_own(asked: Seal, servicer: ScriptedAuditor) -> None:
    asked("approve", "3fa9c1", "--reason", "checked")
    asked("rollback")
    approved, rolled_back = servicer.requests
    assert isinstance(approved, pb.ApproveEditRequest)
    assert isinstance(rolled_back, pb.RollbackRequest)
    assert approved.reason == "checked"
    assert rolled_back.reason
    assert approved.request_id != rolled_back.request_id


def test_a_refused_promotion_says_why_and_what_to_do(asked: Seal) -> None:
    outcome = asked("promote", "81c0d2")
    assert outcome.code == 1
    assert "did not pass the retention gate" in outcome.err
    assert len(outcome.err.splitlines()) == 2


def test_what_is_not_there_is_said_with_a_way_on(asked: Seal) -> None:
    outcome = asked("show", "ffffff")
    assert outcome.code == 1
    assert "no such edit (edit ffffff)" in outcome.err
    assert "seal edits" in outcome.err


def test_nobody_answering_points_to_seal_up(seal: Seal) -> None:
    outcome = seal("status", "--auditor", "127.0.0.1:1")
    assert outcome.code == 1
    assert "nothing answers at 127.0.0.1:1" in outcome.err
    assert "seal up" in outcome.err


def test_a_broken_ledger_fails_the_command(asked: Seal, servicer: ScriptedAuditor) -> None:
    servicer.intact = False
    outcome = asked("verify", "--json")
    assert outcome.code == 1
    assert outcome.objects[0]["broken_at"] == 17
    assert "broken at event 17" in outcome.err


def test_asking_falls_back_only_when_told_to_and_says_who_answered(asked: Seal, servicer: ScriptedAuditor) -> None:
    own = asked("ask", "What is figure 3?")
    assert "gave no answer" not in own.err
    fallen = asked("ask", "What is figure 3?", "--fallback")
    assert fallen.out.strip() == "Paris"
    assert f"version {servicer.live[:6]}" in fallen.err
    assert "gave no answer; this is the answer of version base" in fallen.err
    (as_json,) = asked("ask", "What is figure 3?", "--fallback", "--json").objects
    assert (as_json["version"], as_json["answered_by"]) == (servicer.live, "base")
    wanted = [request.fallback_to_parent for request in servicer.requests if isinstance(request, pb.AskRequest)]
    assert wanted == [False, True, True]
