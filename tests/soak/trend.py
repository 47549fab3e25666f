"""How much something grows over a day, from samples of it: the straight line through them, warm-up left out."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import linear_regression

WARM_UP = 1 / 3


def settled(samples: Sequence[float]) -> list[float]:
    """The samples behind the first third: caches, pools and compiled code are there by then."""
    return list(samples[round(len(samples) * WARM_UP) :])


def growth(samples: Sequence[float]) -> float:
    """By how much the line through the settled samples rises over as many as all are; 0 of fewer than three."""
    steady = settled(samples)
    if len(steady) < 3:
        return 0.0
    slope = linear_regression(range(len(steady)), steady).slope
    return float(slope * len(samples))
