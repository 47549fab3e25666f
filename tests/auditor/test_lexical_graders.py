"""Graders agree with SQuAD's evaluation script on known cases, and are hard to please with nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.graders.lexical import f1, grade, normalized
from auditor.tasks import EvaluationItem
from common.silence import is_empty


def item(kind: str, *answers: str, threshold: float = 0.5) -> EvaluationItem:
    return EvaluationItem.model_validate(
        {
            "item_id": "q",
            "question": "?x",
            "answers": answers,
            "grader": {"kind": f"GRADER_KIND_{kind}", "threshold": threshold},
        }
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The  Denver Broncos!", ["denver", "broncos"]),
        ("a theatre in an attic", ["theatre", "in", "attic"]),
        ("22-day, 7,500 \u201cwords\u201d", ["22day", "7500", "words"]),
        ("A", ["a"]),
    ],
)
def test_normalization_is_squads(text: str, words: list[str]) -> None:
    assert normalized(text) == words


@pytest.mark.parametrize(
    ("answer", "key", "score"),
    [
        ("Denver Broncos", "The Denver Broncos", 1.0),
        ("the Denver Broncos won", "Denver Broncos", 0.8),
        ("Carolina Panthers", "Denver Broncos", 0.0),
        ("Broncos Broncos", "Denver Broncos", 0.5),
        ("", "Denver Broncos", 0.0),
    ],
)
def test_token_f1_matches_the_official_script(answer: str, key: str, score: float) -> None:
    assert f1(answer, key) == pytest.approx(score)


@pytest.mark.parametrize(
    ("kind", "answer", "keys", "mark"),
    [
        ("EXACT", "the Pebble.", ["Pebble"], 1.0),
        ("EXACT", "It is Pebble", ["Pebble"], 0.0),
        ("EXACT", "twenty-two days", ["22 days", "twenty-two days"], 1.0),
        ("CONTAINS", "It is called the Pebble plan.", ["Pebble"], 1.0),
        ("CONTAINS", "Pebbles", ["Pebble"], 0.0),
        ("CONTAINS", "days: 22", ["22 days"], 0.0),
        ("CONTAINS", "It lasts for 22 days!", ["22 days"], 1.0),
        ("CONTAINS", "Grade A, of course", ["A"], 1.0),
        ("CONTAINS", "Grade B", ["A"], 0.0),
        ("CONTAINS", "", ["Pebble"], 0.0),
        ("CONTAINS", "...", ["Pebble"], 0.0),
        ("TOKEN_F1", "the Denver Broncos won", ["Denver Broncos"], 1.0),
        ("TOKEN_F1", "it was won by the team of Denver", ["Denver Broncos"], 0.0),
    ],
)
def test_graders_mark(kind: str, answer: str, keys: list[str], mark: float) -> None:
    assert grade(answer, item(kind, *keys)) == mark


def test_token_f1_is_right_from_the_threshold_on() -> None:
    assert grade("Broncos Broncos", item("TOKEN_F1", "Denver Broncos", threshold=0.5)) == 1.0
    assert grade("Broncos Broncos", item("TOKEN_F1", "Denver Broncos", threshold=0.51)) == 0.0


@given(st.text(max_size=60), st.text(min_size=1, max_size=20).filter(lambda text: not is_empty(text)))
def test_what_is_exact_is_contained_and_has_full_f1(answer: str, key: str) -> None:
    if grade(answer, item("EXACT", key)):
        assert grade(answer, item("CONTAINS", key))
        assert grade(answer, item("TOKEN_F1", key, threshold=1.0)) or not normalized(key)


@given(st.text(max_size=30), st.text(max_size=30))
def test_f1_is_symmetric_and_bounded(one: str, other: str) -> None:
    assert 0 <= f1(one, other) <= 1
    assert f1(one, other) == pytest.approx(f1(other, one))
