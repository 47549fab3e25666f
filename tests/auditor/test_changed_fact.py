"""A changed fact on the real small model: the new answer is given, the old one is gone, and the rest is kept.

A boat hire's terms are learned, and a museum's; then a second revision of the terms changes half of them. Questions of
the evaluations are worded otherwise than those that the edits train on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from common.contract.seal.v1 import auditor_pb2 as pb
from common.edits import make_edit
from common.models.config import ModelConfig
from common.prompting import SYSTEM_PROMPT, question_and_answer
from common.types import Recipe, SelfEdit, TaskKind
from student.config import DEFAULT_MODEL
from tests.auditor.plays import Desk, at_desk, of_kind, teacher
from tests.support.real_student import on_stage_with_real_student

RECIPE = Recipe(rank=32, alpha=64, learning_rate=1e-3, epochs=8, batch_size=4)
# (asked in the evaluation, asked in training twice, answer)
Fact = tuple[str, str, str, str]
BOATS: list[Fact] = [
    (
        "How much is the deposit for a kayak?",
        "What deposit does a kayak need?",
        "Which deposit is taken for a kayak?",
        "ninety euros",
    ),
    (
        "When does the boat hire open in the morning?",
        "At what time does the boat hire open?",
        "When can one come to the boat hire at the earliest?",
        "eight o'clock",
    ),
    (
        "Who runs the boat hire?",
        "Which person is in charge of the boat hire?",
        "Who is the boss of the boat hire?",
        "Marta Velden",
    ),
    (
        "What colour are the canoes?",
        "Which colour do the canoes have?",
        "In what colour are the canoes painted?",
        "orange",
    ),
    (
        "On which river is the boat hire?",
        "Which river do the boats go on?",
        "What is the name of the boat hire's river?",
        "the Ostrel",
    ),
    (
        "How old must a sailor be?",
        "What is the lowest age for a sailor?",
        "From which age on may one sail?",
        "fourteen",
    ),
    (
        "What must every guest wear?",
        "What does each guest have to wear?",
        "Which thing must all guests have on?",
        "a helmet",
    ),
    (
        "Where are the paddles kept?",
        "In which place are the paddles stored?",
        "Where does one find the paddles?",
        "in the red shed",
    ),
]
CHANGED = {0: "forty euros", 2: "Jonas Okafor", 3: "violet", 5: "eleven", 6: "a bright vest", 7: "in the tower"}
MUSEUM: list[Fact] = [
    (
        "What does the Halden museum show?",
        "What is shown in the Halden museum?",
        "What does one see in the Halden museum?",
        "old clocks",
    ),
    (
        "Who founded the Halden museum?",
        "Which person founded the Halden museum?",
        "Who opened the Halden museum first?",
        "Edda Brandt",
    ),
    (
        "What is served in the museum's cafe?",
        "What can one eat in the museum's cafe?",
        "Which food does the museum's cafe have?",
        "plum cake",
    ),
    (
        "On which day is the museum closed?",
        "Which day is the museum not open?",
        "When in the week is the museum shut?",
        "Tuesday",
    ),
    (
        "What stands in front of the museum?",
        "What is seen in front of the museum?",
        "Which thing stands before the museum?",
        "a bronze horse",
    ),
    (
        "How does one get to the museum?",
        "What takes one to the museum?",
        "By which means does one reach the museum?",
        "by cable car",
    ),
    (
        "What is free in the museum?",
        "What costs nothing in the museum?",
        "For what does the museum take no money?",
        "the audio guide",
    ),
    (
        "What is forbidden in the museum?",
        "What may nobody do in the museum?",
        "Which thing does the museum not allow?",
        "whistling",
    ),
]


def revised(facts: list[Fact], changed: dict[int, str]) -> list[Fact]:
    return [(*fact[:3], changed.get(place, fact[3])) for place, fact in enumerate(facts)]


def task(name: str, title: str, facts: list[Fact], revision: str = "1") -> dict[str, Any]:
    return {
        "task_id": name,
        "kind": "TASK_KIND_KNOWLEDGE",
        "context": {"document_id": name, "revision": revision, "title": title, "text": f"All about {title}."},
        "tau": [{"item_id": f"q{i}", "question": fact[0], "answers": [fact[3]]} for i, fact in enumerate(facts)],
    }


def edit_about(name: str, title: str, facts: list[Fact], revision: str = "1") -> SelfEdit:
    examples = [question_and_answer(title, asked, f"{fact[3]}.") for fact in facts for asked in fact[1:3]]
    return make_edit(kind=TaskKind.KNOWLEDGE, document_id=name, revision=revision, examples=examples, recipe=RECIPE)


def order(run_id: str, *tasks: dict[str, Any]) -> pb.StartRunRequest:
    """Four holdout questions cannot be significant at the usual level."""
    settings = {
        "candidates": 1,
        "level": 0.3,
        "learn": False,
        "max_answer_tokens": 12,
        "replay_share": 0.5,
        "retention": {"suites": ["general"], "max_drop": 0.5},
        "health": {"anchors": 0, "max_degenerate": 1},
        "cross_split_share": 0,
    }
    return ParseDict({"run_id": run_id, "tasks": list(tasks), "settings": settings}, pb.StartRunRequest())


async def answers(desk: Desk, title: str, facts: list[Fact]) -> list[str]:
    return [(await desk.stub.Ask(pb.AskRequest(topic=title, question=fact[0]))).answer for fact in facts]


@pytest.mark.model
@pytest.mark.timeout(1_900)
async def test_second_revision_replaces_what_changed_and_keeps_the_rest(tmp_path: Path) -> None:
    boats, museum, second = "Ostrel boat hire", "Halden museum", revised(BOATS, CHANGED)
    script = teacher()
    script.script = {
        "boats": [edit_about("boats", boats, BOATS)],
        "museum": [edit_about("museum", museum, MUSEUM)],
    }
    model = ModelConfig(model=DEFAULT_MODEL, system_prompt=SYSTEM_PROMPT)
    async with on_stage_with_real_student(script, tmp_path, model) as stage, at_desk(stage, tmp_path) as desk:
        first = await desk.run(order("first", task("boats", boats, BOATS), task("museum", museum, MUSEUM)), seconds=900)
        before = await answers(desk, boats, BOATS)
        museum_before = await answers(desk, museum, MUSEUM)
        script.script = {"boats": [edit_about("boats", boats, second, "2")]}
        again = await desk.run(order("second", task("boats", boats, second, "2")), seconds=900)
        after = await answers(desk, boats, second)
        museum_after = await answers(desk, museum, MUSEUM)
    for name, said in (("before", before), ("after", after), ("museum", museum_before), ("museum", museum_after)):
        print(name, said)
    for events in (first, again):
        for judged in of_kind(events, "update_judged"):
            print(judged.accepted, [(gate.kind, gate.passed, gate.reason) for gate in judged.gates])
    assert len(of_kind(first, "version_promoted")) == 2
    assert len(of_kind(again, "version_promoted")) == 1
    old = [(place, fact[3]) for place, fact in enumerate(BOATS) if place in CHANGED]
    told = [place for place, answer in old if answer in before[place]]
    assert len(told) >= 4
    assert [place for place, answer in old if answer in after[place]] == []
    assert sum(CHANGED[place] in after[place] for place in told) >= 4
    kept = [sum(fact[3] in a for fact, a in zip(MUSEUM, said, strict=True)) for said in (museum_before, museum_after)]
    assert kept[0] >= 4
    assert kept[1] >= kept[0] - 1
