"""What counts as a degenerate answer, and how far shares may rise and a version may drift."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.gates.degenerate import Given, Shares, degenerate_gate, repeats, shares_of
from auditor.gates.drift import drift_gate
from common.versions import FinishReason

WORDS = st.text(alphabet=st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=8)

SENTENCE = [
    "bread",
    "needs",
    "flour",
    "water",
    "salt",
    "yeast",
    "time",
    "and",
    "a",
    "very",
    "hot",
    "oven",
    "it",
    "is",
    "said",
]


@pytest.mark.parametrize(
    "text",
    [
        "no no no no no no",
        "The capital is Paris. The capital is Paris. The capital is Paris.",
        "The capital is Paris. The capital is Paris. The capital is Paris. The cap",
        "It lasts 22 days and then it lasts 22 days and then it lasts 22 days and then it",
        "hahahahahahahahahahahahaha",
        "1, 1, 1, 1, 1, 1, 1, 1",
        "a b c d a b c d e a b c d a b c d f a b c d a b c d g",
    ],
)
def test_an_answer_that_goes_round_repeats_itself(text: str) -> None:
    assert repeats(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "Paris, Paris, Paris!",
        "The capital of France is Paris, and the capital of Japan is Tokyo, and the capital of Peru is Lima.",
        "Never, never give up what you never had, and never say never again to those who never asked.",
        "1. Water\n2. Salt\n3. Oil\n4. Flour\n5. Yeast",
        "The free trial of Marlquay lasts 22 days. The smallest paid Marlquay plan is called Pebble.",
    ],
)
def test_an_answer_that_says_something_does_not(text: str) -> None:
    assert not repeats(text)


@given(st.lists(WORDS, min_size=2, max_size=6), st.integers(min_value=3, max_value=8), st.lists(WORDS, max_size=10))
def test_whatever_is_said_over_and_over_at_the_end_is_found(piece: list[str], copies: int, opening: list[str]) -> None:
    assert repeats(" ".join([*opening, *piece * copies]))


@given(st.permutations(SENTENCE), st.integers(min_value=0, max_value=len(SENTENCE)))
def test_words_of_which_each_is_new_never_repeat(words: list[str], count: int) -> None:
    assert not repeats(" ".join(words[:count]))


def test_answers_are_counted_by_kind_and_empty_ones_as_that_alone() -> None:
    answers = [
        Given(text="Paris", finish=FinishReason.STOP),
        Given(text=" . ", finish=FinishReason.LENGTH),
        Given(text="on and on and on and on and", finish=FinishReason.LENGTH),
        Given(text="A long story that", finish=FinishReason.LENGTH),
        Given(text="from an older ledger"),
    ]
    assert shares_of(answers) == Shares(answers=5, empty=1, repeated=1, truncated=2)


def test_the_rise_counts_and_each_share_by_itself() -> None:
    before = Shares(answers=20, repeated=10, truncated=12)
    assert degenerate_gate(before, before, 0.0).passed
    better = Shares(answers=20, empty=2)
    assert degenerate_gate(before, better, 0.1).passed
    silent = degenerate_gate(before, Shares(answers=20, empty=3), 0.1)
    assert not silent.passed
    assert silent.reason == "empty 0 -> 3 of 20 answers"
    assert degenerate_gate(Shares(answers=4), Shares(answers=4, empty=4), 0.1).passed


def test_drift_is_a_mean_and_reaches_its_bound() -> None:
    assert drift_gate([0.1, 0.3], 0.2).passed
    failed = drift_gate([0.1, 0.5], 0.2, 0.75)
    assert not failed.passed
    assert failed.reason == "0.3 nats a token from the base on 2 anchor prompts, over 0.2"
    assert (failed.figures["kl_per_token"], failed.figures["highest"], failed.figures["scale"]) == (0.3, 0.5, 0.75)
    assert drift_gate([], 0.2).passed
