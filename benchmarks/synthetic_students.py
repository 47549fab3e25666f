"""Students made of chance: whether a question is answered right is drawn, so an edit's true gain is known.

A question that the base answers stays right with one probability, one that it does not becomes right with another, and
the two are chosen such that the mean is what the edit's true gain says and the spread between runs is the published one
(SEAL.md, defect 3: 0.19 at five questions, 0.075 between edits). The base answers greedily: once, and the same for all.
benchmarks/auditor.py judges them.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

BASE = 0.3
SPREAD_BETWEEN_RUNS = 0.19
SPREAD_BETWEEN_EDITS = 0.075
# Variance of one question's mark between runs of one edit: the spread above is that of the mean of five.
VARIANCE = 5 * SPREAD_BETWEEN_RUNS**2


@dataclass(frozen=True)
class SyntheticEdit:
    """stays, becomes: chance of a right answer where the base's was right, and where it was wrong."""

    true_gain: float
    stays: float
    becomes: float

    @classmethod
    def of(cls, true_gain: float) -> SyntheticEdit:
        """The edit with this true gain; one that cannot be (mean outside 0..1) is cut to what can."""
        mean = min(max(BASE + true_gain, 0.0), 1.0)
        # stays = mean + 0.7 x, becomes = mean - 0.3 x: the mean is kept, and the variance falls with x^2.
        apart = math.sqrt(max(0.0, mean * (1 - mean) - VARIANCE) / (BASE * (1 - BASE)))
        apart = min(apart, (1 - mean) / (1 - BASE), mean / BASE)
        return cls(mean - BASE, mean + (1 - BASE) * apart, mean - BASE * apart)

    def run(self, before: tuple[float, ...], rng: random.Random) -> tuple[float, ...]:
        """Marks of one training of this edit."""
        return tuple(float(rng.random() < (self.stays if mark else self.becomes)) for mark in before)


def base_marks(questions: int, rng: random.Random) -> tuple[float, ...]:
    return tuple(float(rng.random() < BASE) for _ in range(questions))


def edits(count: int, gain: float, spread: float, rng: random.Random) -> list[SyntheticEdit]:
    """A task's candidates, whose true gains spread around `gain`."""
    return [SyntheticEdit.of(rng.gauss(gain, spread)) for _ in range(count)]
