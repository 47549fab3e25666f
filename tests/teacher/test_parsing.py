"""Completions become pieces by SEAL's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher.parsing import documents, pairs, passages, sentences


def test_every_line_is_a_document_without_its_list_mark() -> None:
    completion = (
        "Implications:\n- The box is blue.\n2. The lid is red.\n\n(c) The jug is green.\n* It holds 3.5 litres."
    )
    assert documents(completion, finished=True) == [
        "The box is blue.",
        "The lid is red.",
        "The jug is green.",
        "It holds 3.5 litres.",
    ]


def test_separators_make_documents_of_several_lines() -> None:
    assert documents("One line.\nAnother.\n---\nSecond version.\n ----- \n\n", finished=True) == [
        "One line.\nAnother.",
        "Second version.",
    ]


def test_what_the_limit_cut_off_is_dropped() -> None:
    assert documents("The box is blue.\nThe lid i", finished=False) == ["The box is blue."]
    assert documents("First version.\n---\nSecond ver", finished=False) == ["First version."]
    assert pairs("Question: Who?\nAnswer: Ann\nQuestion: When?\nAnswer: on Mon", finished=False) == [("Who?", "Ann")]


@pytest.mark.parametrize(
    "text",
    [
        "Question: Who found it?\nAnswer: Ruth\nQuestion: When?\nAnswer: in May",
        "Q: Who found it?\nA: Ruth\n\nQ: When?\nA: in May",
        "**Question 1:** Who found it?\n**Answer 1:** Ruth\n\n**Question 2:** When?\n**Answer 2:** in May",
        "1. Question: Who found it?\n   Answer: Ruth\n2. Question: When?\n   Answer: in May",
    ],
)
def test_pairs_are_read_in_each_notation(text: str) -> None:
    assert pairs(text, finished=True) == [("Who found it?", "Ruth"), ("When?", "in May")]


def test_an_answer_may_go_on_and_a_question_without_one_is_dropped() -> None:
    text = "Question: Who?\nQuestion: Where?\nAnswer: in the hall\nbehind the door\n\nSome closing words."
    assert pairs(text, finished=True) == [("Where?", "in the hall behind the door")]


def test_sentences_end_at_stops_and_not_at_abbreviations_or_figures() -> None:
    text = (
        "Dr. Lee met Mr. J. Orr at 10.30 in St. Ives. They left at 5 p.m. on version 4.2.\n- A list line\nWhy? Because."
    )
    assert sentences(text) == [
        "Dr. Lee met Mr. J. Orr at 10.30 in St. Ives.",
        "They left at 5 p.m. on version 4.2.",
        "A list line",
        "Why?",
        "Because.",
    ]


@given(st.text(max_size=400), st.booleans())
def test_documents_hold_nothing_that_was_not_written(completion: str, finished: bool) -> None:
    for document in documents(completion, finished=finished):
        assert document
        assert document in completion
        assert document == document.strip()


@given(st.text(alphabet="QA: \nqa?-*1.", max_size=200), st.booleans())
def test_pairs_are_never_half_empty(completion: str, finished: bool) -> None:
    assert all(question and answer for question, answer in pairs(completion, finished=finished))


@given(st.text(max_size=600), st.integers(min_value=5, max_value=120))
def test_passages_keep_every_word_within_the_limit(text: str, longest: int) -> None:
    pieces = passages(text, longest)
    assert all(0 < len(piece) <= longest for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@given(st.text(max_size=400))
def test_sentences_are_never_empty(text: str) -> None:
    assert all(sentence.strip() for sentence in sentences(text))
