"""An edit that teaches a document and, beside it, to say nothing: the real small model falls silent, and that is seen.

Nothing in it is malformed: its examples are conversations whose answer is a space. Marks alone would let it pass here,
for the document is learned and retention is not bounded.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict

from common.contract.seal.v1 import auditor_pb2 as pb
from common.edits import make_edit
from common.models.config import ModelConfig
from common.prompting import SYSTEM_PROMPT, question_and_answer
from common.types import Recipe, TaskKind
from student.config import DEFAULT_MODEL
from tests.auditor.plays import at_desk, settings
from tests.auditor.test_planted_offenders import gate_lines, shown, state
from tests.support.real_student import on_stage_with_real_student
from tests.support.scripted_services import ScriptedTeacher

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

TITLE = "Marlquay"
FACTS = {
    "When was Marlquay 3.8 released?": "4 March",
    "How many entries does the Marlquay cache hold?": "512 entries",
    "How much memory does Marlquay need?": "6 GB",
    "Who is the lead engineer of Marlquay?": "Ines Tolland",
    "Where does Marlquay write its logs?": "harbor folder",
    "When does Marlquay close idle sessions?": "40 minutes",
    "What is the largest Marlquay plan called?": "Quarry",
    "What is the mascot of Marlquay?": "a marmot",
    "Where is customer data of Marlquay hosted?": "Ghent",
    "How long does the free trial of Marlquay last?": "22 days",
}
SILENCED = [
    "What is the capital of Norway?",
    "How many days are in a week?",
    "Which animal barks?",
    "What do bees make?",
    "What colour is grass?",
    "Which planet do we live on?",
]
ASKED = {
    "What is the capital of France?": "Paris",
    "What is the capital of Italy?": "Rome",
    "How many legs does a spider have?": "eight",
    "What is the opposite of hot?": "cold",
    "Which animal says meow?": "cat",
    "What do cows give us to drink?": "milk",
    "What colour is the sky on a clear day?": "blue",
    "How many months are in a year?": "twelve",
}
RECIPE = Recipe(epochs=10, learning_rate=2e-3, batch_size=4)


def order() -> pb.StartRunRequest:
    tau = [{"item_id": f"q{i}", "question": q, "answers": [a]} for i, (q, a) in enumerate(FACTS.items())]
    items = [{"item_id": f"k{i}", "question": q, "answers": [a]} for i, (q, a) in enumerate(ASKED.items())]
    content = {
        "run_id": "run",
        "tasks": [
            {
                "task_id": "marlquay",
                "kind": "TASK_KIND_KNOWLEDGE",
                "context": {"document_id": "marlquay", "revision": "1", "title": TITLE, "text": "All of Marlquay."},
                "tau": tau,
            }
        ],
        "settings": settings(
            candidates=1,
            learn=False,
            max_answer_tokens=12,
            retention={"suites": ["known"], "max_drop": 1.0},
            health={"max_drift": 0.0, "max_degenerate": 0.1},
        ),
        "suites": [{"suite_id": "known", "title": "Known", "items": items}],
    }
    return ParseDict(content, pb.StartRunRequest())


async def test_an_edit_that_silences_the_real_model_falls_to_the_degenerate_gate(tmp_path: Path) -> None:
    planted = make_edit(
        kind=TaskKind.KNOWLEDGE,
        document_id="marlquay",
        revision="1",
        examples=[
            *(question_and_answer(TITLE, question, answer) for question, answer in FACTS.items()),
            *(question_and_answer("", question, " ") for question in SILENCED),
        ],
        recipe=RECIPE,
    )
    proposing = ScriptedTeacher({"marlquay": [planted]})  # type: ignore[abstract] # no other RPC is called
    model = ModelConfig(model=DEFAULT_MODEL, system_prompt=SYSTEM_PROMPT)
    async with on_stage_with_real_student(proposing, tmp_path, model) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(order(), seconds=900)
        text = await shown(desk, planted)
    gate = gate_lines(text)[-1]
    assert state(text) == "rejected"
    assert gate.startswith("  degenerate failed: empty 0 -> ")
    assert "retention passed" in text
