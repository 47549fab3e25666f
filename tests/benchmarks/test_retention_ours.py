"""The arm `ours` reads its matrix from what the auditor recorded: real auditor, scripted peers."""

from __future__ import annotations

from pathlib import Path

from benchmarks.passages import Passage, Question
from benchmarks.questioning import Answers
from benchmarks.retention_ours import Played, Step, sequence_of, steps_of, task_of
from common.lora.residency import BASE_VERSION
from tests.auditor.plays import at_desk, start_run, student, task, teacher, teaching
from tests.support.scripted_services import edit_about, on_stage


async def test_every_passage_has_its_turn_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    useless = edit_about("doc-b", "About b", [])
    script = {"a": [teaching("a", 10)], "b": [useless], "c": [teaching("c", 10)]}
    async with on_stage(teacher(**script), student()) as stage, at_desk(stage, tmp_path) as desk:
        tasks = [task(name) for name in script]
        events = await desk.run(start_run("run", tasks, candidates=1, learn=False))
        moves = [version for name, version in stage.student.moves if name == "live"]
    start, steps = steps_of(events)
    assert start == BASE_VERSION
    assert [(step.passage, step.accepted) for step in steps] == [("a", True), ("b", False), ("c", True)]
    assert [step.version for step in steps] == [moves[0], moves[0], moves[1]]


def passage(name: str, count: int = 5) -> Passage:
    questions = tuple(Question(question=f"{name} {i}?", answer=f"{name}{i}") for i in range(count))
    return Passage(title=f"About {name}", context=f"All of {name}.", questions=questions)


def test_a_passage_that_was_turned_down_leaves_the_matrix_row_as_it_was() -> None:
    first, second = passage("a"), passage("b")

    def answers(right_a: int, right_b: int) -> Answers:
        return Answers(
            texts=(
                tuple(f"a{i}" if i < right_a else "?" for i in range(5)),
                tuple(f"b{i}" if i < right_b else "no" for i in range(5)),
            )
        )

    played = Played(
        start=BASE_VERSION,
        steps=(
            Step(passage=second.key, accepted=False, version=BASE_VERSION, reason="no edit gained"),
            Step(passage=first.key, accepted=True, version="v1"),
        ),
        answers={BASE_VERSION: answers(0, 1), "v1": answers(4, 2)},
        seconds=1.0,
    )
    found = sequence_of(played, [first, second], 0)
    assert found.titles == ("About b", "About a")
    assert found.rows == ((0.2, 0.0), (0.2, 0.0), (0.4, 0.8))
    assert found.accepted == (False, True)
    assert found.empty == (5, 5, 1), "a question mark is no word"


def test_the_auditor_gets_the_passage_whole() -> None:
    made = task_of(passage("a"))
    assert made.context.text == "All of a."
    assert [list(item.answers) for item in made.tau] == [[f"a{i}"] for i in range(5)]
