"""What a benchmark will compute, counted before it begins: tokens, and minutes at the speeds measured on two cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from benchmarks.forgetting import EditSequence
from benchmarks.passages import Passage


class Arm(Protocol):
    """One way to learn passages one after another. speed: trained tokens a second on two cores."""

    speed: float

    def tokens(self, passages: Sequence[Passage], order: int) -> int:
        """Most tokens that training one sequence computes, but for what ties between edits cost."""

    def run(self, passages: Sequence[Passage], order: int) -> EditSequence:
        """One sequence, from wherever it stands on disk to its end."""


def print_plan(arms: Mapping[str, Arm], orders: Sequence[Sequence[Passage]]) -> None:
    """One line an arm; answers come on top (a minute for every two hundred, or so)."""
    questions = sum(len(passage.questions) for passage in orders[0])
    print(f"{len(orders[0])} passages with {questions} questions, {len(orders)} orders", flush=True)
    for name, arm in arms.items():
        tokens = [arm.tokens(order, number) for number, order in enumerate(orders)]
        minutes = sum(tokens) / arm.speed / 60
        print(
            f"  {name}: at most {sum(tokens):,} tokens ({', '.join(f'{count:,}' for count in tokens)}), about "
            f"{minutes:.0f} minutes of training on two cores",
            flush=True,
        )
