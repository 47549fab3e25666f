"""Only what stands in the context may teach, once, in usable form."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher.pieces import Candidate, Question, Statement
from teacher.screening import Reason, ScreeningSettings, fault, screen
from teacher.wording import holds, names, numbers, repetition

TITLE = "Harlow Library annual report"
SOURCE = "In 2019 the library bought 1,340 new books for children, chosen by Ruth Albrecht."
SETTINGS = ScreeningSettings()


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("How many books did the library buy in 2019?", "1340", None),
        ("Who chose the books for children?", "Ruth Albrecht", None),
        ("How many books did the library buy?", "340", Reason.INVENTED_NUMBER),
        ("Who chose the books for children?", "Anna Smith", Reason.INVENTED_NAME),
        ("Who were the new books for?", "elderly pensioners", Reason.UNGROUNDED),
        ("Did Ruth Albrecht choose the books?", "Ruth Albrecht", Reason.REVEALING),
        ("What does it say about that?", "Ruth Albrecht", Reason.VAGUE),
        ("Tell me about the books.", "Ruth Albrecht", Reason.UNUSABLE),
        ("Who chose the books for children?", "...", Reason.UNUSABLE),
    ],
)
def test_questions(question: str, answer: str, reason: Reason | None) -> None:
    assert fault(Question(question, answer, SOURCE), TITLE, SETTINGS) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Harlow Library bought children's books in 2019.", None),
        ("Books chosen by Ruth Albrecht came to the library.", None),
        ("The library bought 2,000 books for children.", Reason.INVENTED_NUMBER),
        ("The books for children were chosen by Peter Stone.", Reason.INVENTED_NAME),
        ("Weather patterns influence coastal agriculture everywhere.", Reason.UNGROUNDED),
        ("books books books books books books books books", Reason.DEGENERATE),
        ("Books.", Reason.UNUSABLE),
    ],
)
def test_statements(text: str, reason: Reason | None) -> None:
    assert fault(Statement(text, SOURCE), TITLE, SETTINGS) == reason


def test_near_duplicates_are_dropped_and_counted() -> None:
    first = Question("Who chose the new books?", "Ruth Albrecht", SOURCE)
    again = Question("Who chose the books?", "Ruth Albrecht", SOURCE)
    other = Question("When did the library buy books?", "In 2019", SOURCE)
    screened = screen([first, again, other], TITLE, SETTINGS)
    assert screened.kept == (first, other)
    assert screened.positions == (0, 2)
    assert screened.dropped == {"near_duplicate": 1}


def test_without_grounding_form_and_duplicates_still_count() -> None:
    loose = ScreeningSettings(grounded=False)
    assert fault(Statement("The library bought 2,000 books.", SOURCE), TITLE, loose) is None
    assert fault(Statement("go go go go go go go go", SOURCE), TITLE, loose) is Reason.DEGENERATE


def test_wording_is_compared_in_one_notation() -> None:
    assert numbers("1,900 merchants, three days, 10:42") == {"1900", "3", "10:42"}
    assert names("The engine Falcon runs on PostgreSQL15 in Leiden. New days come.") == {
        "falcon",
        "postgresql15",
        "leiden",
    }
    assert holds("It starts at 10:42 sharp, for 1,900 people.", "10:42")
    assert holds("for 1,900 people", "1900 people")
    assert not holds("It starts at 10:42.", "0:42")
    assert not holds("anything", "...")
    assert repetition("a b c d e f g") == 0.0


WORDS = st.sampled_from(["books", "library", "Ruth", "Albrecht", "2019", "1,340", "Paris", "77", "who", "?", "."])
TEXTS = st.lists(WORDS, max_size=14).map(" ".join)
CANDIDATES = st.one_of(st.builds(Statement, TEXTS, st.just(SOURCE)), st.builds(Question, TEXTS, TEXTS, st.just(SOURCE)))


@given(st.lists(CANDIDATES, max_size=12))
def test_what_is_kept_adds_no_number_or_name_and_everything_is_accounted_for(pieces: Sequence[Candidate]) -> None:
    screened = screen(pieces, TITLE, SETTINGS)
    assert len(screened.kept) + sum(screened.dropped.values()) == len(pieces)
    assert [pieces[place] for place in screened.positions] == list(screened.kept)
    for piece in screened.kept:
        text = f"{piece.question}\n{piece.answer}" if isinstance(piece, Question) else piece.text
        assert numbers(text) <= numbers(f"{SOURCE} {TITLE}")
        assert "paris" not in names(text)


@given(st.lists(CANDIDATES, max_size=8))
def test_screening_twice_changes_nothing(pieces: Sequence[Candidate]) -> None:
    once = screen(pieces, TITLE, SETTINGS)
    assert screen(once.kept, TITLE, SETTINGS).kept == once.kept
