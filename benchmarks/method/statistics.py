"""Intervals of a benchmark's figures. Pure.

Questions about one passage stand and fall together, so passages are what is drawn again (Efron and Tibshirani 1993, the
cluster bootstrap): 95 % percentile intervals of the mean over questions. Differences are paired by question before.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.method.results import Figure
from common.canonical import derive_seed

DRAWS = 10_000
TAIL = 0.025
PLACES = 4


def interval_of_mean(groups: Sequence[Sequence[float]], seed: int = 0) -> Figure:
    """Mean of all values with its interval; groups: the values of each passage, one a question."""
    sums = [(sum(group), len(group)) for group in groups if group]
    if not sums:
        return Figure(mean=0.0, low=0.0, high=0.0)
    draw = random.Random(derive_seed("bootstrap", seed))  # noqa: S311 - a seeded draw
    means = sorted(_mean(draw.choices(sums, k=len(sums))) for _ in range(DRAWS))
    low, high = means[round(TAIL * (DRAWS - 1))], means[round((1 - TAIL) * (DRAWS - 1))]
    return Figure(mean=round(_mean(sums), PLACES), low=round(low, PLACES), high=round(high, PLACES))


def paired(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> list[list[float]]:
    """Differences by question, passage by passage."""
    return [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(ours, theirs, strict=True)]


def _mean(sums: Sequence[tuple[float, int]]) -> float:
    return sum(total for total, _ in sums) / sum(count for _, count in sums)
