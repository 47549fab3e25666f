"""Numbers as people write them in English texts: 22, 1,250.5, -3, .5, 6e23. The numeric grader and task files use this.

What is not plainly one number is none: 1,5 (a decimal comma or two numbers?), 3.8.1 (a version), B12 (a name).
"""

from __future__ import annotations

import re
from decimal import Decimal

# A sign belongs to the number unless something stands before it: 3-4 is a range. Three digits of exponent keep
# arithmetic within Decimal's bounds.
NUMBER = re.compile(
    r"(?<!\w)(?<!\d[.,])"
    r"(?P<sign>(?<![\w)\]])[-+\u2212])?"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
    r"(?P<exponent>[eE][-+]?\d{1,3})?"
    r"(?![.,]?\d|[eE][-+]?\d)"
)


def numbers_in(text: str) -> list[Decimal]:
    """All numbers of a text, in order."""
    return [_value(found) for found in NUMBER.finditer(text)]


def number_of(text: str) -> Decimal | None:
    """The number that a text is, and nothing else; None if it is none."""
    found = NUMBER.fullmatch(text.strip())
    return _value(found) if found else None


def _value(found: re.Match[str]) -> Decimal:
    sign = "-" if found["sign"] in ("-", "\u2212") else ""
    return Decimal(f"{sign}{found['digits'].replace(',', '')}{found['exponent'] or ''}")
