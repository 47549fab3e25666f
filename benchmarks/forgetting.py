"""The forgetting matrix of one sequence of edits, and what it comes to (SEAL.md, continual edits). Pure.

Rows are versions (the unedited one first, then one after each edit), columns are passages in the order in which they
were edited, entries are shares of the passage's questions answered right.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Self

from pydantic import model_validator

from common.types import Domain


class EditSequence(Domain):
    """One arm's run over one order of passages.

    rows: unedited, then after each edit; accepted: whether an edit changed the live version (the published procedure
    accepts all); empty: answers without a word, of each row.
    """

    arm: str
    order: int
    passages: tuple[str, ...]
    titles: tuple[str, ...]
    questions: tuple[int, ...]
    accepted: tuple[bool, ...]
    rows: tuple[tuple[float, ...], ...]
    empty: tuple[int, ...]
    seconds: float = 0.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        n = len(self.passages)
        if {len(self.titles), len(self.questions), len(self.accepted)} != {n}:
            raise ValueError("titles, questions and accepted must be as many as passages")
        if len(self.rows) != n + 1 or len(self.empty) != n + 1 or any(len(row) != n for row in self.rows):
            raise ValueError(f"{n} passages need {n + 1} rows of {n}")
        return self

    @property
    def right_after(self) -> tuple[float, ...]:
        """Of each passage, right after its own edit: the diagonal."""
        return tuple(self.rows[place + 1][place] for place in range(len(self.passages)))

    @property
    def learned(self) -> float:
        return fmean(self.right_after)

    @property
    def forgetting(self) -> float:
        """Mean over passages of (right after its edit - after all edits); negative where later edits helped."""
        return fmean(then - last for then, last in zip(self.right_after, self.rows[-1], strict=True))

    @property
    def final_mean(self) -> float:
        return fmean(self.rows[-1])

    @property
    def unedited_mean(self) -> float:
        return fmean(self.rows[0])

    @property
    def backward_transfer(self) -> float:
        """Lopez-Paz and Ranzato 2017 (arXiv 1706.08840): -forgetting, over all but the last passage."""
        return fmean(
            last - then for then, last in zip(self.right_after[:-1], self.rows[-1][:-1], strict=True)
        )  # fmt: skip


def mean_of(sequences: Sequence[EditSequence], name: str) -> float:
    """A summary figure, over orders, to four places."""
    return round(fmean(float(getattr(sequence, name)) for sequence in sequences), 4)


def result(ours: Sequence[EditSequence], reference: Sequence[EditSequence]) -> dict[str, float]:
    """The benchmark's last line."""
    return {
        "accepted": round(fmean(sum(sequence.accepted) for sequence in ours), 2),
        "learned": mean_of(ours, "learned"),
        "learned_reference": mean_of(reference, "learned"),
        "forgetting": mean_of(ours, "forgetting"),
        "forgetting_reference": mean_of(reference, "forgetting"),
        "final_mean": mean_of(ours, "final_mean"),
        "unedited_mean": mean_of(ours, "unedited_mean"),
    }
