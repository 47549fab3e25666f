"""Splits tau once into reward questions, which decide filter and Learn, and holdout questions, which decide promotion.

The order of the questions' hashes goes to reward and holdout in turn, so the split depends on what is asked alone: not
on ids, keys or the order in a file. Questions asked twice stay on one side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from auditor.tasks import EvaluationItem


class Tau(NamedTuple):
    """tau, split. Holdout is empty when there is but one question."""

    reward: tuple[EvaluationItem, ...]
    holdout: tuple[EvaluationItem, ...]


def split(tau: Sequence[EvaluationItem]) -> Tau:
    """Reward gets the first question, and one more than holdout when the number is odd."""
    ordered = sorted(tau, key=lambda item: (item.content_hash, item.item_id))
    turn = {name: i for i, name in enumerate(dict.fromkeys(item.content_hash for item in ordered))}
    return Tau(
        reward=tuple(item for item in ordered if turn[item.content_hash] % 2 == 0),
        holdout=tuple(item for item in ordered if turn[item.content_hash] % 2 == 1),
    )
