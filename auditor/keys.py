"""How an item's answer is marked, and which keys each grader can use: task.proto's limits. auditor/tasks.py holds them.

Nothing here depends on the clock or on the auditor's configuration: what was accepted once can be read back for ever.
Whether a judge or command of a name exists is asked when a run is ordered (auditor/graders/desk.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

import regex
from pydantic import Field, field_validator

from auditor.graders.pattern_size import MOST_CHARACTERS, written_out
from common.numerals import number_of
from common.types import Domain

MIN_OPTIONS, MAX_OPTIONS = 2, 64


class GraderKind(StrEnum):
    EXACT = "GRADER_KIND_EXACT"
    CONTAINS = "GRADER_KIND_CONTAINS"
    TOKEN_F1 = "GRADER_KIND_TOKEN_F1"  # noqa: S105 - no password
    NUMERIC = "GRADER_KIND_NUMERIC"
    REGEX = "GRADER_KIND_REGEX"
    CHOICE = "GRADER_KIND_CHOICE"
    JUDGE = "GRADER_KIND_JUDGE"
    GRID = "GRADER_KIND_GRID"
    COMMAND = "GRADER_KIND_COMMAND"
    MAJORITY = "GRADER_KIND_MAJORITY"


REFUSED = (GraderKind.GRID, GraderKind.MAJORITY)


class Grader(Domain):
    """How an item's answer is marked; unspecified is contains."""

    kind: GraderKind = GraderKind.CONTAINS
    threshold: float = Field(default=0.5, ge=0, le=1)
    tolerance: float = Field(default=0.0, ge=0)
    name: str = Field(default="", pattern=r"^[A-Za-z0-9._:-]{0,128}$")

    @field_validator("kind")
    @classmethod
    def _built_in(cls, kind: GraderKind) -> GraderKind:
        if kind in REFUSED:
            raise ValueError(f"{kind} is not built in")
        return kind

    @field_validator("threshold")
    @classmethod
    def _zero_is_default(cls, value: float) -> float:
        return value or 0.5


def check_options(options: Sequence[str], grader: Grader) -> None:
    """Raises ValueError unless a choice has its options, and everything else none."""
    if grader.kind is not GraderKind.CHOICE:
        if options:
            raise ValueError(f"options need {GraderKind.CHOICE}; this is {grader.kind}")
        return
    if not MIN_OPTIONS <= len(options) <= MAX_OPTIONS:
        raise ValueError(f"{GraderKind.CHOICE} needs {MIN_OPTIONS}..{MAX_OPTIONS} options, not {len(options)}")
    told_apart = {option.strip() for option in options}
    if "" in told_apart:
        raise ValueError("an option is blank")
    if len(told_apart) < len(options):
        raise ValueError("two options are the same")


def check_answers(answers: Sequence[str], options: Sequence[str], grader: Grader) -> None:
    """Raises ValueError unless the grader can mark by these keys; no message quotes one."""
    if not answers and grader.kind is not GraderKind.COMMAND:
        raise ValueError(f"{grader.kind} needs at least one accepted answer")
    match grader.kind:
        case GraderKind.NUMERIC:
            if any(number_of(answer) is None for answer in answers):
                raise ValueError("an accepted answer is no number, as 1,250.5 is one")
        case GraderKind.REGEX:
            if any(written_out(answer) > MOST_CHARACTERS for answer in answers):
                raise ValueError(f"an accepted answer repeats too much: {MOST_CHARACTERS:,} characters written out")
            if not all(map(is_pattern, answers)):
                raise ValueError("an accepted answer is no regular expression of Python's")
        case GraderKind.CHOICE:
            if options and not set(answers) <= set(options):
                raise ValueError("an accepted answer is none of the options")
            if options and set(answers) == set(options):
                raise ValueError("every option is an accepted answer")
        case GraderKind.COMMAND:
            return
        case _:
            if any(not re.search(r"\w", answer) for answer in answers):
                raise ValueError("an accepted answer needs at least one letter or digit")


def is_pattern(text: str) -> bool:
    """Whether a text is a regular expression.

    They are Python's; auditor/graders/patterns.py searches with the `regex` module, whose search can be stopped.
    """
    try:
        re.compile(text)
        # Not kept: patterns of all runs that were ever ordered would stay in memory.
        regex.compile(text, cache_pattern=False)
    except (re.error, regex.error, OverflowError, RecursionError):
        return False
    return True
