"""Gates say what decided, and in which figures; composition and history know what belongs together."""

from __future__ import annotations

import pytest

from auditor.compose import union
from auditor.examiner import Group, Marked
from auditor.findings import Gate, Mark, Score
from auditor.gates.update import confirmation_gate, retention_gate
from auditor.tasks import Split
from common.canonical import digest_of
from common.types import Recipe
from tests.auditor.plays import teaching
from tests.support.scripted_services import edit_about


def scores(before: float, after: float, questions: int) -> tuple[Score, Score]:
    return Score(questions=questions, correct=before), Score(questions=questions, correct=after)


@pytest.mark.parametrize(
    ("own", "pooled", "passed"),
    [
        ((0, 1, 5), (0, 0, 5), True),
        ((1, 1, 5), (1, 3, 9), False),
        ((2, 1, 5), (2, 5, 9), False),
        ((0, 1, 2), (0, 1, 4), True),
        ((1, 1, 2), (1, 2, 4), True),
        ((1, 1, 2), (1, 1, 4), False),
        ((1, 0, 2), (1, 3, 4), False),
        ((0, 1, 2), (2, 2, 4), False),
        ((0, 0, 0), (0, 0, 0), False),
    ],
)
def test_confirmation_rule(own: tuple[int, int, int], pooled: tuple[int, int, int], passed: bool) -> None:
    """From five own questions on they must gain; fewer must not lose while the pool gains."""
    gate = confirmation_gate(scores(*own), scores(*pooled))
    assert gate.passed is passed
    assert gate.reason.startswith("UNDECIDED") is (own[2] < 5)
    assert gate.figures["questions"] == own[2]


def marked(name: str, correct: int, questions: int) -> Marked:
    marks = tuple(Mark(item_id=f"i{i}", answer="0" * 64, score=float(i < correct)) for i in range(questions))
    return Marked(Group(Split.RETENTION, (), suite_id=name), marks, Score(questions=questions, correct=correct))


def judged(*groups: tuple[str, int, int, int], max_drop: float = 0.1) -> Gate:
    return retention_gate([(n, marked(n, b, q), marked(n, a, q)) for n, b, a, q in groups], max_drop)


def test_retention_allows_the_bound_and_no_more() -> None:
    assert judged(("general", 10, 9, 10)).passed
    assert not judged(("general", 10, 8, 10)).passed
    assert judged(("general", 10, 8, 10), max_drop=0.2).passed
    assert judged().reason == "nothing to retain"


def test_one_suite_cannot_pay_for_another() -> None:
    gate = judged(("general", 20, 20, 20), ("safety", 5, 3, 5))
    assert not gate.passed
    assert gate.reason == "safety fell from 5 to 3 of 5"


def test_small_groups_count_in_the_total_alone() -> None:
    assert judged(("general", 20, 20, 20), ("tiny", 2, 1, 2)).passed
    assert not judged(("tiny", 2, 0, 2), ("small", 2, 2, 2)).passed


def test_union_has_each_example_once_and_the_first_winners_recipe() -> None:
    shared = ("What is shared?", "This.")
    first = edit_about("doc-a", "About a", [("a question 0?", "a0"), shared], recipe=Recipe(rank=16))
    second = edit_about("doc-a", "About a", [shared, ("a question 1?", "a1")])
    edit, parts = union([first, second], 100)
    assert [digest_of(e) for e in edit.examples] == [digest_of(e) for e in (*first.examples, second.examples[1])]
    assert edit.recipe == first.recipe
    assert parts == (first, second)
    assert union([first, second], 100)[0].digest == edit.digest
    assert union([second, first], 100)[0].digest != edit.digest


def test_union_leaves_out_whole_winners_that_do_not_fit() -> None:
    a, b, c = teaching("a", 6), teaching("b", 6), teaching("c", 3)
    edit, parts = union([a, b, c], 10)
    assert parts == (a, c)
    assert len(edit.examples) == 9


def test_union_of_one_is_the_winner_itself() -> None:
    a = teaching("a", 6)
    assert union([a], 10) == (a, (a,))
