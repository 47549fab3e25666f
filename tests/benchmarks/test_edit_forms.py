"""Recorded completions as training examples: what is asked can be answered from the source, and nothing is invented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.edit_forms import FormSettings, asked, formed, pieces_of, questions, reference_documents, statements
from benchmarks.passages import Passage, read_edits, read_passages
from common.types import LossMask

DATA = Path(__file__).resolve().parents[2] / "benchmarks" / "data"
PASSAGES = read_passages(DATA / "eight_passages.json")
EDITS = read_edits(DATA / "eight_passages_edits.json")
SENTENCE = "In 1871 the annexation, after a short war, was confirmed by the Treaty of Frankfurt for 30 years."


def test_numbers_and_names_are_asked_for_within_their_clause() -> None:
    found = {made.part: made.question for made in questions(SENTENCE, "Strasbourg")}
    assert found["1871"].startswith("In which year the annexation")
    assert found["30"].endswith("for how many years?")
    assert found["Treaty of Frankfurt"] == "Was confirmed by the who or what for 30 years?"


@pytest.mark.parametrize(
    ("statement", "part", "question"),
    [
        (
            "It took $1.5bn of the budget in 1871.",
            "1871",
            "It took $1.5bn of the budget in which year?",
        ),
        (
            "They are dated back to the 16th century.",
            "16th",
            "They are dated back to the which century?",
        ),
        (
            "It supported both parties in the 1970s.",
            "1970s",
            "It supported both parties in the which decade?",
        ),
        (
            "The town has 4,000 maps of the coast.",
            "4,000",
            "The town has how many maps of the coast?",
        ),
        (
            "The plan costs $15.50 for every month.",
            "$15.50",
            "The plan costs how much money for every month?",
        ),
    ],
)
def test_a_number_is_asked_for_whole(statement: str, part: str, question: str) -> None:
    assert {made.part: made.question for made in questions(statement)}[part] == question


def test_a_fronted_question_is_made_of_the_whole_statement() -> None:
    found = {made.part: made.fronted for made in questions(SENTENCE, "Strasbourg")}
    assert found["1871"].startswith("In which year the annexation, after a short war, was confirmed by the Treaty")
    assert found["30"].startswith("For how many In 1871 the annexation")
    made = asked([SENTENCE], "Strasbourg", "It rains.", per_statement=1, fronted=True)
    assert len(made) == 2
    assert made[0].texts[1] == made[1].texts[1]


def test_a_statement_is_answered_with_the_clause_of_the_passage_that_says_the_same() -> None:
    passage = "The annexation was confirmed in 1871, after a short war. Wine has been grown there since 1200."
    forms: dict[str, Any] = {"per_statement": 1, "per_sentence": 0, "answer": "passage"}
    made = asked(["In 1871 the annexation was confirmed."], "Strasbourg", passage, **forms)
    assert [example.texts[1] for example in made] == ["The annexation was confirmed in 1871, after a short war."]
    alone = asked(["In 1871 the tower burned down twice."], "Strasbourg", passage, **forms)
    assert [example.texts[1] for example in alone] == ["In 1871 the tower burned down twice."]


@pytest.mark.parametrize("passage", PASSAGES, ids=lambda passage: passage.title)
def test_every_answer_stands_in_its_source_and_not_in_its_question(passage: Passage) -> None:
    made = [
        (source, entry)
        for completion in EDITS[passage.context].completions
        for source in (*statements(completion), *passage.context.split(". "))
        for entry in questions(source, passage.title)
    ]
    assert len(made) >= 20
    for source, entry in made:
        assert entry.part in source
        assert entry.part.lower() in entry.clause.lower()
        assert entry.question.endswith("?")
        assert entry.part not in entry.question or source.count(entry.part) > 1


def test_examples_are_asked_as_evaluations_are_and_train_the_answer_alone() -> None:
    (example, *_) = asked([SENTENCE], "Strasbourg", "It rains. It rains.", answer="sentence")
    assert example.loss_mask is LossMask.COMPLETION
    question, answer = example.texts
    assert question.startswith("Topic: Strasbourg\n")
    assert answer == SENTENCE


def test_the_published_reading_keeps_every_line_under_the_title_and_the_passage_last() -> None:
    found = reference_documents("1. One.\n\n2. Two.", "Title", "The passage.")
    assert found == ["Title\n1. One.", "Title\n2. Two.", "Title\nThe passage."]
    assert reference_documents("One.\nMore.\n---\nTwo.", "T", "P") == ["T\nOne.\nMore.", "T\nTwo.", "T\nP"]
    assert len(reference_documents("\n".join(f"{i}." for i in range(50)), "T", "P")) == 31


def test_only_whole_statements_are_taught() -> None:
    assert statements("1. It rains.\n2. It rains.\n3. It rai") == ["It rains."]
    lines = ["1. **Weather**: It rains.", "Here is what follows from this:", "Does it rain?"]
    lines += ["It **snows**.", "**Strasbourg** was annexed.", "It hails."]
    assert statements("\n".join(lines)) == ["It rains.", "It snows.", "Strasbourg was annexed.", "It hails."]


def test_forms_are_as_the_settings_name_them() -> None:
    stated = pieces_of([SENTENCE], "It rained in 1871.")
    plain_only = formed(stated, "T", "It rained in 1871.", FormSettings(plain=True, asked=False))
    assert [example.text for example in plain_only] == [f"T\n{SENTENCE}", "T\nIt rained in 1871."]
    both = formed(stated, "T", "It rained in 1871.", FormSettings(plain=True, asked=True, per_statement=1))
    assert len([example for example in both if example.conversation is not None]) == 1 + 1


def test_written_questions_are_taught_as_they_are_and_read_as_published() -> None:
    completion = "Question: Who built it?\nAnswer: Ada Holm\n\nQuestion: When was it built?\nAnswer: 1902"
    pieces = pieces_of([completion, completion], "Ada Holm built it in 1902.")
    examples = formed(pieces, "Library", "Ada Holm built it in 1902.", FormSettings())
    assert [example.texts for example in examples] == [
        ("Topic: Library\nWho built it?", "Ada Holm"),
        ("Topic: Library\nWhen was it built?", "1902"),
    ]
    assert reference_documents(completion, "Library", "The passage.") == [
        "Library\nQuestion: Who built it?\nAnswer: Ada Holm",
        "Library\nQuestion: When was it built?\nAnswer: 1902",
        "Library\nThe passage.",
    ]
