"""What the teacher is told of a round's rewards, and how much that can say of tau. Pure; auditor/loop.py calls it.

The teacher has to hear which of its edits were kept: that is what it learns from, and a side channel to the questions.
It cannot be closed, but it can be bounded: whatever the teacher makes of a round, it is told one of finitely many
messages, and the logarithm of their number is the most that it can learn. Nothing else in the message depends on tau:
edits stand in the order of their digests, not of their merit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, comb, log2

from auditor.peers import KeptEdit

EXACT = 0


def told(kept: Sequence[KeptEdit], levels: int) -> tuple[KeptEdit, ...]:
    """The kept edits as the teacher hears of them, in an order that says nothing."""
    coarse = [KeptEdit(edit=entry.edit, reward=coarsened(entry.reward, levels)) for entry in kept]
    return tuple(sorted(coarse, key=lambda entry: (entry.edit.sha256, entry.reward)))


def coarsened(reward: float, levels: int) -> float:
    """The upper end of the reward's level, 0..1 divided into `levels` of equal width; what is below 0 is in the lowest.

    levels EXACT: the reward as it is; 1: always 1.0, for kept.
    """
    if levels == EXACT:
        return reward
    # A reward that is a level's end in decimal belongs to that level, whatever floating point makes of it.
    level = ceil(reward * levels - 1e-9)
    return min(levels, max(1, level)) / levels


def reward_values(levels: int, *, questions: int, runs: int) -> int:
    """How many different rewards one kept edit can have.

    Marks are 0 or 1, so a gain is one of 2qr + 1 sums over q questions and r runs; `runs` is the most an edit can have.
    """
    return levels or sum(2 * questions * run + 1 for run in range(1, runs + 1))


def context_bits(*, candidates: int, places: int, values: int) -> float:
    """The most, in bits, that one context's part of the message can say: any `places` of the edits, or fewer, each with
    any of its values."""
    return log2(sum(comb(candidates, kept) * values**kept for kept in range(min(places, candidates) + 1)))
