"""Graders that are pure functions of answer and key: exact, contains, token F1, numeric. Benchmarks call `grade` too.

Normalization is SQuAD's (Rajpurkar et al. 2016, the official evaluation script): lower case, no punctuation, no
articles, single spaces. An answer without a word is always wrong.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from auditor.graders.port import Submission
from auditor.keys import GraderKind
from auditor.tasks import EvaluationItem
from common.numerals import number_of, numbers_in
from common.silence import is_empty

PUNCTUATION = str.maketrans("", "", string.punctuation + "\u2018\u2019\u201c\u201d\u2026\u2013\u2014")
ARTICLES = frozenset({"a", "an", "the"})


class GradeFunction(Protocol):
    """Marks one answer: 1.0 right, 0.0 wrong."""

    def __call__(self, answer: str, item: EvaluationItem) -> float: ...


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; articles stay."""
    return text.lower().translate(PUNCTUATION).split()


def normalized(text: str) -> list[str]:
    """SQuAD's normalized words. A text of articles alone keeps them: "A" can be a key."""
    found = words(text)
    return [word for word in found if word not in ARTICLES] or found


def exact(answer: str, item: EvaluationItem) -> float:
    """The normalized answer equals a key."""
    return float(any(normalized(answer) == normalized(key) for key in item.answers))


def contains(answer: str, item: EvaluationItem) -> float:
    """The normalized answer contains a key as whole words, in order and side by side."""
    return float(any(within(key, answer) for key in item.answers))


def within(key: str, answer: str) -> bool:
    wanted = normalized(key)
    # A key of articles alone is looked for among all words of the answer.
    found = words(answer) if set(wanted) <= ARTICLES else normalized(answer)
    return any(found[i : i + len(wanted)] == wanted for i in range(len(found) - len(wanted) + 1))


def token_f1(answer: str, item: EvaluationItem) -> float:
    """The best key's token F1 reaches the item's threshold."""
    return float(max(f1(answer, key) for key in item.answers) >= item.grader.threshold)


def f1(answer: str, key: str) -> float:
    """SQuAD's token F1, 0..1: harmonic mean of precision and recall over normalized words, with multiplicity."""
    found, wanted = normalized(answer), normalized(key)
    shared = sum((Counter(found) & Counter(wanted)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(found), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def numeric(answer: str, item: EvaluationItem) -> float:
    """A number of the answer is at most the tolerance away from a key (common/numerals.py says what a number is)."""
    keys = [number for key in item.answers if (number := number_of(key)) is not None]
    tolerance = Decimal(str(item.grader.tolerance))
    return float(any(abs(found - key) <= tolerance for found in numbers_in(answer) for key in keys))


GRADERS: Mapping[GraderKind, GradeFunction] = {
    GraderKind.EXACT: exact,
    GraderKind.CONTAINS: contains,
    GraderKind.TOKEN_F1: token_f1,
    GraderKind.NUMERIC: numeric,
}


def grade(answer: str, item: EvaluationItem) -> float:
    """The mark of an item's grader, which must be one of GRADERS."""
    return 0.0 if is_empty(answer) else GRADERS[item.grader.kind](answer, item)


class LexicalMarker:
    """GRADERS behind the port."""

    identity = ""

    async def mark(self, submissions: Sequence[Submission]) -> AsyncGenerator[tuple[int, float], None]:
        for place, submission in enumerate(submissions):
            yield place, grade(submission.answer, submission.item)

    async def close(self) -> None:
        """Holds nothing."""
