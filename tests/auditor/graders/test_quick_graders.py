"""Numbers, patterns and choices are marked as the contract says; nothing takes for ever."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.graders.choice import chosen, continuation_of
from auditor.graders.lexical import grade
from auditor.graders.patterns import SECONDS, runaway
from auditor.recorder import Recorder
from common.errors import NotPossible
from common.versions import OptionScore, ScoredContinuation
from tests.auditor.graders.items import graders, item, submitted


@pytest.mark.parametrize(
    ("answer", "key", "tolerance", "mark"),
    [
        ("It lasts 22 days.", "22", 0, 1),
        ("It lasts 220 days.", "22", 0, 0),
        ("about 7,500 requests", "7500", 0, 1),
        ("0.3", "0.2", 0.1, 1),
        ("0.3001", "0.2", 0.1, 0),
        ("-5", "5", 0, 0),
        ("twenty-two", "22", 0, 0),
        ("1e300", "1", 1e-300, 0),
    ],
)
def test_a_number_is_right_within_the_tolerance(answer: str, key: str, tolerance: float, mark: float) -> None:
    assert grade(answer, item("NUMERIC", key, tolerance=tolerance)) == mark


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9), st.integers(0, 10**9))
def test_numeric_is_the_distance_compared_with_the_tolerance(found: int, key: int, tolerance: int) -> None:
    marked = grade(f"I say {found}.", item("NUMERIC", str(key), tolerance=tolerance))
    assert marked == float(abs(found - key) <= tolerance)


@pytest.mark.parametrize(
    ("answer", "pattern", "mark"),
    [
        ("Written in 1984 by Orwell", r"\b19\d\d\b", 1),
        ("Paris", "paris", 0),
        ("Paris", "(?i)paris", 1),
        ("It is Paris.", "^Paris$", 0),
        ("Paris", "^Paris$", 1),
        ("...", r"\W", 0),
    ],
)
async def test_a_pattern_is_looked_for_in_the_answer(own: Recorder, answer: str, pattern: str, mark: float) -> None:
    assert await graders(own).mark([submitted(answer, item("REGEX", pattern))]) == [mark]


async def test_a_search_without_end_is_stopped_and_is_no_mark(own: Recorder) -> None:
    # One that the trial before a run does not catch: what provokes it is in no trial text.
    endless = item("REGEX", r"^(q|qq)+$")
    began = time.monotonic()
    with pytest.raises(NotPossible) as failed:
        await graders(own).mark([submitted("q" * 4_000 + "!", endless)])
    assert failed.value.reason == "GRADER_TOO_SLOW"
    assert failed.value.ids == {"item_id": "q"}
    assert time.monotonic() - began < SECONDS + 5


@pytest.mark.parametrize("pattern", ["(a|aa)+$", r"(\w+\w+)+;", "(.*,)*x", r"(\w|\w\w)+;"])
def test_runaway_patterns_are_found_before_a_run(pattern: str) -> None:
    assert runaway(pattern)


@pytest.mark.parametrize("pattern", [r"^\d+$", "(?i)paris|lutetia", r"\b\w+\s+\w+\b", r"^.*?42.*$"])
def test_ordinary_patterns_are_not(pattern: str) -> None:
    assert not runaway(pattern)


OPTIONS = ("Paris", "Lyon", "Nice", "+")


@given(st.permutations(OPTIONS), st.integers(1, 3))
def test_what_the_student_gets_of_a_choice_depends_on_neither_keys_nor_their_order(
    options: list[str], keys: int
) -> None:
    usual = continuation_of("France", item("CHOICE", "Paris", options=OPTIONS))
    assert continuation_of("France", item("CHOICE", *options[:keys], options=tuple(options))) == usual
    assert continuation_of("Spain", item("CHOICE", "Paris", options=OPTIONS)) != usual


def test_the_key_stands_at_every_place_over_many_questions() -> None:
    places = [
        continuation_of("", item("CHOICE", "Paris", question=f"Question {i}?", options=OPTIONS)).options.index("Paris")
        for i in range(80)
    ]
    assert {place: places.count(place) > 8 for place in range(4)} == dict.fromkeys(range(4), True)


@given(st.lists(st.floats(-1e6, 0), min_size=4, max_size=4))
def test_the_likeliest_option_is_chosen_whatever_its_length(likelihoods: list[float]) -> None:
    asked = continuation_of("", item("CHOICE", "Paris", options=OPTIONS))
    scores = tuple(OptionScore(log_likelihood=value, tokens=i + 1) for i, value in enumerate(likelihoods))
    scored = ScoredContinuation(continuation_id=asked.continuation_id, version="base", options=scores)
    assert chosen(asked, scored) == asked.options[likelihoods.index(max(likelihoods))]


def test_scores_of_other_options_choose_nothing() -> None:
    asked = continuation_of("", item("CHOICE", "Paris", options=OPTIONS))
    scored = ScoredContinuation(continuation_id=asked.continuation_id, version="base", options=(OptionScore(),))
    assert chosen(asked, scored) is None


async def test_a_chosen_sign_counts_and_a_silent_answer_never_does(own: Recorder) -> None:
    desk = graders(own)
    choice = item("CHOICE", "+", options=OPTIONS)
    assert await desk.mark([submitted("+", choice), submitted("Lyon", choice)]) == [1, 0]
    silent = [item("REGEX", ".*"), item("CONTAINS", "a"), item("NUMERIC", "0", tolerance=9)]
    answers = ["", " \n", "?!"]
    assert not any(await desk.mark([submitted(*pair) for pair in itertools.product(answers, silent)]))
