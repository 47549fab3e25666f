"""Whether more questions turned right than wrong by more than luck."""

from __future__ import annotations

from math import comb


def one_sided_p(better: int, worse: int) -> float:
    """Exact one-sided sign test: the chance of at least `better` of `better + worse` if both were equally likely.

    `better` and `worse` count discordant questions (wrong before and right after, and the reverse). 1.0 if there is
    none.
    """
    trials = better + worse
    extreme: int = sum(comb(trials, successes) for successes in range(better, trials + 1))
    chance: float = extreme / 2**trials
    return chance
