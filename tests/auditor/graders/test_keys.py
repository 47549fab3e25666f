"""Which items can be ordered at all: each grader has keys that it can mark by."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.numerals import number_of, numbers_in
from tests.auditor.graders.items import item


@pytest.mark.parametrize(
    ("kind", "answers", "more"),
    [
        ("NUMERIC", ["1,250.5", "-3", "6e23"], {"tolerance": 0.5}),
        ("REGEX", [r"^\W+$", "(?i)yes"], {}),
        ("REGEX", [r"\d{4}-\d{2}-\d{2}", r"(\w{1,20} ){30}", r"[{}]\{9999}"], {}),
        ("CHOICE", ["+"], {"options": ("+", "-")}),
        ("JUDGE", ["Paris"], {"name": "strict"}),
        ("COMMAND", [], {}),
        ("COMMAND", ["?!"], {}),
    ],
)
def test_keys_that_a_grader_can_mark_by_are_taken(kind: str, answers: list[str], more: dict[str, Any]) -> None:
    assert item(kind, *answers, **more).answers == tuple(answers)


@pytest.mark.parametrize(
    ("kind", "answers", "more", "place", "reason"),
    [
        ("NUMERIC", ["22 days"], {}, "answers", "is no number"),
        ("NUMERIC", ["1,5"], {}, "answers", "is no number"),
        ("NUMERIC", [], {}, "answers", "at least one"),
        ("NUMERIC", ["1"], {"tolerance": -1}, "tolerance", "greater than or equal to 0"),
        ("REGEX", ["fine", "(CANARY"], {}, "answers", "no regular expression"),
        ("REGEX", ["(?P<CANARY>a)(?P=b)"], {}, "answers", "no regular expression"),
        ("REGEX", ["a{9999999}"], {}, "answers", "repeats too much"),
        ("REGEX", ["(?:(?:ab{90}){90})(?#CANARY){90}"], {}, "answers", "repeats too much"),
        ("REGEX", ["(?x)(a{80}) # CANARY\n{80}"], {}, "answers", "repeats too much"),
        ("CHOICE", ["a"], {}, "options", "2..64 options"),
        ("CHOICE", ["a"], {"options": ("a",)}, "options", "2..64 options"),
        ("CHOICE", ["a"], {"options": ("a", "a ")}, "options", "the same"),
        ("CHOICE", ["a"], {"options": ("a", " ")}, "options", "blank"),
        ("CHOICE", ["CANARY"], {"options": ("a", "b")}, "answers", "none of the options"),
        ("CHOICE", ["a", "b"], {"options": ("a", "b")}, "answers", "every option"),
        ("CHOICE", [], {"options": ("a", "b")}, "answers", "at least one"),
        ("CONTAINS", ["a"], {"options": ("a", "b")}, "options", "options need"),
        ("JUDGE", [], {}, "answers", "at least one"),
        ("JUDGE", ["..."], {}, "answers", "letter or digit"),
        ("GRID", ["a"], {}, "kind", "not built in"),
        ("MAJORITY", [], {}, "kind", "not built in"),
    ],
)
def test_keys_that_a_grader_cannot_mark_by_are_refused_by_place(
    kind: str, answers: list[str], more: dict[str, Any], place: str, reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason) as refused:
        item(kind, *answers, **more)
    assert place in [str(error["loc"][-1]) for error in refused.value.errors()]
    assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("It costs 1,250.50 euros, or -3.", ["1250.50", "-3"]),
        ("a range of 3-4, from 2020-21", ["3", "4", "2020", "21"]),
        ("€31 for 5km, 22-day trial", ["31", "5", "22"]),
        ("6e23 and \u22125 and .5", ["6e23", "-5", "0.5"]),
        ("version 3.8.1, room B12, 1,5 litres, 12,34, 1e5000", []),
        ("twelve", []),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, numbers: list[str]) -> None:
    assert numbers_in(text) == [Decimal(number) for number in numbers]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12))
def test_any_plain_number_is_read_back_with_and_without_separators(number: Decimal) -> None:
    assert number_of(f"{number:f}") == number
    assert numbers_in(f"It is {number:,f} today.") == [number]


@given(st.text(alphabet="0123456789.,-+eE \u2212x", max_size=60))
def test_what_is_read_stands_in_the_text(text: str) -> None:
    digits = set(re.findall(r"\d", text))
    for number in numbers_in(text):
        assert number.is_finite()
        assert {str(digit) for digit in number.as_tuple().digits} - {"0"} <= digits
