"""The whole loop on real parts: three processes, SmolLM2 as teacher (in vLLM) and as student, one short document."""

from __future__ import annotations

import json
import os
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


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[str]:
    """The auditor's address, with a real teacher and student behind it."""
    # The gates' figures are not what is tested here: let the update through, whatever it forgets.
    settings = [
        "auditor.settings.retention.max_drop=1.0",
        "auditor.settings.threshold=-1.0",
        "teacher.learn.max_pairs=4",
    ]
    plan = make_plan(data=tmp_path / "data", settings=settings, free_ports=True)
    async with services_up(plan) as services:
        yield services.target("auditor")


def seal(target: str, *arguments: str) -> list[Any]:
    """JSON lines that the command printed. Fails with its errors."""
    command = [sys.executable, "-m", "cli.main", *arguments, "--auditor", target, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_edit_is_proposed_trained_judged_explained_and_undone(target: str, tmp_path: Path) -> None:
    (tmp_path / "harbour.yaml").write_text(TASK)
    events = seal(
        target,
        *("run", str(tmp_path / "harbour.yaml"), "--run-id", "one"),
        *("--rounds", "1", "--candidates", "2", "--recipe", "epochs=3"),
    )
    numbers = [int(event["seq"]) for event in events if int(event.get("seq", 0))]
    assert numbers == sorted(set(numbers)), "every recorded event once, in order"
    watched = seal(target, "watch", "one")
    assert [int(event["seq"]) for event in watched if int(event.get("seq", 0))] == numbers

    edits = seal(target, "edits")
    assert len(edits) == 2
    states = {edit["state"] for edit in edits}
    assert states <= {"EDIT_STATE_ACCEPTED", "EDIT_STATE_REJECTED", "EDIT_STATE_KEPT"}
    (record,) = seal(target, "show", edits[0]["edit"]["sha256"])
    origin = record["origin"]
    assert origin["backend"] == "vllm"
    assert len(origin["model_digest"]["sha256"]) == 64
    assert record["versions"][0]["recipe"]["rank"] == record["edit"]["recipe"]["rank"]
    questions = {result["item_id"] for result in record["reward_results"]}
    assert questions
    assert questions < {"q1", "q2", "q3", "q4"}, "the holdout half decides nothing here"

    live, *_ = [v for v in seal(target, "versions") if v.get("live")]
    if live["version"] != "base":
        seal(target, "rollback", "base")
    (asked,) = seal(target, "ask", "Who is the curator?", "--topic", "Kestrel Quay opening notes")
    assert asked["version"] == "base"
    (ledger,) = seal(target, "verify")
    assert ledger["intact"] is True
