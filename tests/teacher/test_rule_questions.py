"""Questions made by rule ask for what stands in the sentence, and for the whole of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.edit_forms import statements
from benchmarks.passages import Passage, read_edits, read_passages
from teacher.rule_questions import FEWEST_TELLING, questions, shortened

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


def test_a_shortened_question_keeps_its_question_words_and_some_of_the_others_in_their_order() -> None:
    question = "In which year was the annexation (after a short war) confirmed by the Treaty of Frankfurt?"
    ways = {shortened(question, random.Random(seed)) for seed in range(20)}
    assert len(ways) > 15
    for way in ways:
        said = iter(word.strip("?(),").lower() for word in question.split())
        assert all(word.strip("?,").lower() in said for word in way.split()), "in their order"
        assert "which year" in way.lower()
        assert len(way.split()) < len(question.split())
        telling = [word for word in way.lower().split() if len(word.strip("?,")) > 3 and word not in ("which", "year")]
        assert len(telling) >= FEWEST_TELLING
        assert not set("()") & set(way)
        assert way[0].isupper()
        assert way.endswith("?")


def test_what_kind_of_thing_is_asked_for_stays_where_it_is_glued_to_a_figure() -> None:
    question = "The Hellenistic period (which year–1840) was ended by several wars?"
    for seed in range(9):
        assert "hich year–1840" in shortened(question, random.Random(seed))


def test_a_question_of_few_words_stays_whole() -> None:
    assert {shortened("Who built towers?", random.Random(seed)) for seed in range(9)} == {"Who built towers?"}
