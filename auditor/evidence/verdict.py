"""A verdict on paired gains: what they show at a level, or that they are too few to show anything. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.evidence.sign_flip import decidable, lower_bound, p_value
from common.types import Domain


class Verdict(Domain):
    """gain: mean a question; lower: its one-sided confidence bound; level: what p_value is compared with."""

    questions: int
    gain: float
    lower: float
    p_value: float
    level: float
    undecided: bool

    @property
    def gained(self) -> bool:
        """A gain that chance does not explain at this level."""
        return not self.undecided and self.p_value <= self.level


def verdict(gains: Sequence[float], level: float, tests: int = 1) -> Verdict:
    """gains: one a question, averaged over runs. tests: how many share the level (Bonferroni)."""
    shared = level / max(1, tests)
    return Verdict(
        questions=len(gains),
        gain=sum(gains) / len(gains) if gains else 0.0,
        lower=lower_bound(gains, shared),
        p_value=p_value(gains),
        level=shared,
        undecided=not decidable(len(gains), shared),
    )
