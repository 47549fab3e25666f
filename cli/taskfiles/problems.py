"""What is wrong with a file, and where.

Every reader appends to one list, so that a user sees all problems of all files at once. Reasons never quote a
document or an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cli.failure import BadInput
from common.convert import path_of

Location = tuple[int | str, ...]


@dataclass(frozen=True)
class Problem:
    """`where` is a line number, or a path like `[3].questions[1].answer`, or empty."""

    file: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.where}: {self.reason}" if self.where else f"{self.file}: {self.reason}"


class BadFiles(BadInput):
    """At least one file cannot be used; lists every problem of every file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems), "Correct the above and run it again.")
        self.problems = tuple(problems)


def explain(error: ValidationError) -> list[tuple[Location, str]]:
    """Where and why, one pair a violation, in words for somebody who writes the file by hand."""
    return [
        (entry["loc"], _reason(entry["type"], str(entry["msg"]), entry.get("ctx", {})))
        for entry in error.errors(include_input=False, include_url=False)
    ]


def _reason(kind: str, message: str, context: Mapping[str, Any]) -> str:
    known = {
        "missing": "is missing",
        "extra_forbidden": "is not a known key",
        "string_too_short": "must not be empty",
        "string_too_long": f"is longer than {context.get('max_length')} characters",
        "too_short": f"needs at least {context.get('min_length')}",
        "too_long": f"has more than {context.get('max_length')}",
        "string_type": "must be a text",
        "string_pattern_mismatch": "may have letters, digits and . _ - : only, 1 to 128 of them",
        "tuple_type": "must be a list",
        "list_type": "must be a list",
        "model_type": "must be a mapping of keys to values",
        "model_attributes_type": "must be a mapping of keys to values",
        "literal_error": f"must be {context.get('expected')}",
        "enum": f"must be {context.get('expected')}",
    }
    return known.get(kind) or message.removeprefix("Value error, ").removeprefix("Input ")


def named(location: Location, reason: str) -> str:
    """The reason with the field's path before it."""
    path = path_of(location)
    return f"{path} {reason}" if path else reason
