"""The whole loop on real parts: three processes, SmolLM2 as teacher (in vLLM) and as student, one short document."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cli.launcher.plan import make_plan
from cli.launcher.services import services_up

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.timeout(900)]

TASK = """\
id: harbour
kind: knowledge
title: Kestrel Quay opening notes
context: |
  The Kestrel Quay reading room opened on 11 May.
  The curator of Kestrel Quay is Odile Brandt.
  Kestrel Quay keeps its oldest maps in the Copper Vault.
  A day ticket for Kestrel Quay costs 17 crowns.
tau:
  - {id: q1, question: "On which day did the reading room open?", answers: [11 May], grader: contains}
  - {id: q2, question: "Who is the curator?", answers: [Odile Brandt], grader: contains}
  - {id: q3, question: "Where are the oldest maps kept?", answers: [Copper Vault], grader: contains}
  - {id: q4, question: "What does a ticket for one day cost?", answers: [17 crowns], grader: contains}
retention:
  - {id: r1, question: "What is the capital of France?", answers: [Paris], grader: contains}
"""
KINDS = ("candidate_scored", "update_judged", "policy_learned")


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[str]:
    """The auditor's address, with a real teacher and student behind it."""
    # The gates' figures are not what is tested here: let the update through, whatever it forgets.
    settings = [
        "auditor.settings.retention.max_drop=1.0",
        "auditor.settings.health.max_drift=0",
        "auditor.settings.health.max_degenerate=1.0",
        "auditor.settings.threshold=-1.0",
        # Two edits that gain nothing would be tied, and trained once more.
        "auditor.settings.racing=false",
        "teacher.learn.max_pairs=4",
    ]
    empty = tmp_path / "seal.yaml"
    empty.touch()
    plan = make_plan(data=tmp_path / "data", config=empty, settings=settings, fresh=True)
    async with services_up(plan) as services:
        yield services.target("auditor")


def command(target: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", *arguments, "--auditor", target, "--json"]


def seal(target: str, *arguments: str) -> list[Any]:
    """JSON lines that the command printed. Fails with its errors."""
    done = subprocess.run(command(target, *arguments), capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def killed_after(target: str, kind: str, *arguments: str) -> list[Any]:
    """Events that a watching command printed before it was killed, right after the first of this kind."""
    printed = []
    with subprocess.Popen(command(target, *arguments), stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        for line in watching.stdout:
            printed.append(json.loads(line))
            if printed[-1]["type"] == kind:
                watching.kill()
                break
    assert watching.returncode == -signal.SIGKILL
    return printed


def numbers(events: list[Any]) -> list[int]:
    """Of recorded events; progress has none."""
    return [int(event["seq"]) for event in events if int(event.get("seq", 0))]


async def test_edit_is_proposed_trained_judged_explained_and_undone(target: str, tmp_path: Path) -> None:
    (tmp_path / "harbour.yaml").write_text(TASK)
    first = killed_after(
        target,
        "candidate_trained",
        *("run", str(tmp_path / "harbour.yaml"), "--run-id", "one"),
        *("--rounds", "1", "--candidates", "2", "--recipe", "epochs=3"),
    )
    second = seal(target, "watch", "one", "--after", str(numbers(first)[-1]))
    events = seal(target, "watch", "one")
    assert numbers(first) + numbers(second) == numbers(events), "none missing, none doubled"
    assert numbers(events) == sorted(set(numbers(events)))

    told = {kind: [event["data"] for event in events if event["type"] == kind] for kind in KINDS}
    assert [scored["liveness"] for scored in told["candidate_scored"]] == ["LIVENESS_LIVE"] * 2
    assert told["update_judged"]
    (learned,) = told["policy_learned"]
    assert learned["policy"]["policy_version"] != "base"
    assert not learned.get("skipped")

    edits = seal(target, "edits")
    assert len([edit for edit in edits if edit["task_id"] == "harbour"]) == 2
    (record,) = seal(target, "show", edits[0]["edit"]["sha256"])
    origin = record["origin"]
    assert origin["backend"] == "vllm"
    assert len(origin["model_digest"]["sha256"]) == 64
    assert record["versions"][0]["recipe"]["rank"] == record["edit"]["recipe"]["rank"]
    questions = {result["item_id"] for result in record["reward_results"]}
    assert questions
    assert questions < {"q1", "q2", "q3", "q4"}, "the holdout half decides nothing here"

    # Whatever the gates said: an operator makes an adapter live, asks it, and takes it back.
    trained = told["update_judged"][-1]["version"]
    question = ("Who is the curator?", "--topic", "Kestrel Quay opening notes")
    (unedited,) = seal(target, "ask", *question, "--version", "base")
    seal(target, "promote", trained, "--reason", "to see it answer")
    (live,) = seal(target, "ask", *question)
    assert live["version"] == trained
    assert live["answer"] != unedited["answer"]
    seal(target, "rollback", "base")
    (back,) = seal(target, "ask", *question)
    assert (back["version"], back["answer"]) == ("base", unedited["answer"])
    (ledger,) = seal(target, "verify")
    assert ledger["intact"] is True
