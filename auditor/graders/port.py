"""The port that every grader implements. auditor/graders/desk.py calls it and nobody else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from auditor.tasks import EvaluationItem


@dataclass(frozen=True)
class Submission:
    """An answer to an item, and the answer's digest. Of a choice: the text of the option that was chosen."""

    item: EvaluationItem
    answer: str
    sha256: str


class Marker(Protocol):
    """Marks answers, 1.0 right and 0.0 wrong.

    identity: all that a mark depends on beside question, keys, answer and the item's own grader settings. Empty: a mark
    is a quick function of those, found anew each time; else marks are remembered in the ledger under all of it.
    """

    @property
    def identity(self) -> str: ...

    def mark(self, submissions: Sequence[Submission]) -> AsyncGenerator[tuple[int, float], None]:
        """(place in `submissions`, mark) of each, once, as it is found.

        Raises SealError when a mark cannot be found: that is never a mark of 0.
        """
        ...

    async def close(self) -> None:
        """Gives back what it holds."""
        ...
