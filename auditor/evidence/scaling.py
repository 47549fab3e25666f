"""Which scale of an update to try next: bisection between what forgets too much and what does not. Pure.

An update that fails nothing but retention or drift is interpolated towards its parent (DESIGN.md, "Scaling an update
down"; STABLE, arXiv 2510.16089, does so by bisection). Retention need not fall evenly on the way, so every scale that
is tried passes every gate itself, and the one that is promoted is one that passed. Confirmation shrinks with the scale
as well: one that learns too little asks for more, as one that passes does. auditor/promotion.py calls `next_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

WHOLE = 1.0
# Scales nearer to each other than this are not told apart.
STEP = 0.125


class Outcome(Enum):
    PASSED = "passed"
    FORGETS = "forgets"
    LEARNS_TOO_LITTLE = "learns too little"
    FAILED = "failed"


def next_scale(tried: Mapping[float, Outcome], last: float, smallest: float) -> float:
    """The scale to judge next, 0 when `last`, the newest of `tried`, is the decision.

    What passed before and is to stand is asked for once more: its judgement is then the last. smallest: no scale below
    is tried; at 1 none is.
    """
    passed = [scale for scale, outcome in tried.items() if outcome is Outcome.PASSED]
    if tried[last] is Outcome.FAILED and not passed:
        return 0.0
    if tried[last] is Outcome.PASSED and last == WHOLE:
        return 0.0
    weak = [scale for scale, outcome in tried.items() if outcome is Outcome.LEARNS_TOO_LITTLE]
    # Bisection goes on above what passes or is weak, and below what forgets, or fails otherwise where less passed.
    too_much = [scale for scale, outcome in tried.items() if outcome in (Outcome.FORGETS, Outcome.FAILED)]
    high = min(too_much, default=0.0)
    low = max([scale for scale in (*passed, *weak) if scale < high], default=smallest)
    if high - low > STEP + 1e-9:
        return round((low + high) / 2, 6)
    if not passed and not weak and smallest < high:
        return smallest
    best = max(passed, default=0.0)
    return 0.0 if best == last else best
