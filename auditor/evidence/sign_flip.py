"""The exact sign-flip test of paired gains, and the confidence bound that inverts it. Pure.

One gain a question: the question is the unit, whatever the number of runs behind it. If an update changed nothing, a
question's gain might as well have had the other sign (Fisher 1935, the randomization test of paired differences). Of
all 2^n ways to choose the signs, the p-value is the share whose sum is at least the one that was found. The gains of
n questions have no p-value below 2^-n: with fewer than five nothing can be said at a level of 0.05.

The bound inverts the test (Hartigan 1969): sums over sign vectors being at least the observed one is a subset's mean
being at most zero, so the lower bound is a quantile of the means of all subsets. The filter, the gates and
benchmarks/auditor.py use this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import NormalDist

# Counting is exact up to here (gains that are not zero); beyond, the sum of the flipped gains is normal for all that
# matters.
EXACT_UP_TO = 200
# Bounds are found on a grid of this step, rounded to the safe side.
STEP = Fraction(1, 100)
# Marks that graders give as decimals are told apart up to this.
RESOLUTION = 5_040
# More sums than this are not counted one by one: gains are rounded down to hundredths then, which is the safe side.
MOST_SUMS = 50_000


def decidable(questions: int, level: float) -> bool:
    """Whether any outcome of so many questions could be significant at `level`."""
    return questions > 0 and 2.0**-questions <= level


def p_value(gains: Sequence[float]) -> float:
    """One-sided: how often random signs give a sum as large as the one found. 1 for no questions.

    Exact for up to 200 gains that are not zero, else the normal limit.
    """
    moved = [gain for gain in gains if gain]
    return _normal_p(moved) if len(moved) > EXACT_UP_TO else _exact_p(_units(_fractions(moved)))


def lower_bound(gains: Sequence[float], level: float) -> float:
    """The mean gain is above this, at a one-sided `level`: never below -1, and -1 where nothing can be said.

    Rounded down to hundredths. Inverting the test takes gains to lie symmetrically about their mean; where they cannot,
    as with losses alone, `lost_share` says more.
    """
    if not decidable(len(gains), level):
        return -1.0
    if len(gains) > EXACT_UP_TO:
        return _normal_bound(gains, level)
    exact = _fractions(gains)
    if min(exact) == max(exact):
        return float(exact[0])
    # Of the shifts -1, -0.99, ..., 1 the largest at which the test still rejects: p grows with the shift.
    low, high = round(-1 / STEP), math.ceil(max(exact) / STEP)
    while low < high:
        middle = (low + high + 1) // 2
        if _exact_p(_units([gain - middle * STEP for gain in exact])) <= level:
            low = middle
        else:
            high = middle - 1
    return float(max(low * STEP, Fraction(-1)))


def upper_bound(gains: Sequence[float], level: float) -> float:
    """The mean gain is below this, at a one-sided `level`; 1 where nothing can be said. Rounded up to hundredths."""
    return 0.0 - lower_bound([-gain for gain in gains], level)


def lost_share(lost: int, of: int, level: float) -> float:
    """Upper bound of the share that is lost, at a one-sided `level`, given how many of how many were.

    Exact (Clopper and Pearson 1934): the share at which so few losses have the probability `level`. Of none it is 1.
    """
    if lost >= of:
        return 1.0
    low, high = lost / of, 1.0
    for _ in range(40):
        share = (low + high) / 2
        if _binomial(lost, of, share) > level:
            low = share
        else:
            high = share
    return high


def _binomial(most: int, of: int, share: float) -> float:
    """Probability of at most `most` of `of`."""
    if not 0.0 < share < 1.0:
        return 1.0 if share <= 0.0 else 0.0
    term = of * math.log1p(-share)
    odds, total = math.log(share) - math.log1p(-share), 0.0
    for count in range(most + 1):
        total += math.exp(term)
        term += math.log(of - count) - math.log(count + 1) + odds
    return min(1.0, total)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the level holds over all of them together (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _fractions(gains: Sequence[float]) -> list[Fraction]:
    fine = [Fraction(round(gain * RESOLUTION), RESOLUTION) for gain in gains]
    unit = math.lcm(STEP.denominator, *(gain.denominator for gain in fine))
    if sum(map(abs, fine)) * unit <= MOST_SUMS:
        return fine
    return [Fraction(math.floor(gain / STEP)) * STEP for gain in fine]


def _units(gains: Sequence[Fraction]) -> list[int]:
    """The gains as whole multiples of one unit; zeros, which no sign changes, are left out."""
    unit = math.lcm(*(gain.denominator for gain in gains)) if gains else 1
    whole = [int(gain * unit) for gain in gains if gain]
    common = math.gcd(*whole) if whole else 1
    return [value // common for value in whole]


def _exact_p(units: Sequence[int]) -> float:
    """Share of sign vectors whose sum is at least that of `units`: of subsets whose own sum is at most 0.

    Subset sums are counted in one big integer with a slot for each sum: adding a value is a shift and an addition.
    """
    if not units:
        return 1.0
    # A slot has whole bytes, and room for the number of all subsets.
    slot = len(units) // 8 + 1
    width = 8 * slot
    below = -sum(value for value in units if value < 0)
    counts = 1 << (below * width)
    for value in units:
        counts += counts << (value * width) if value > 0 else counts >> (-value * width)
    # Slots 0..below hold the sums -below..0.
    size = (below + 1) * slot
    low = (counts & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    total = sum(int.from_bytes(low[at : at + slot], "little") for at in range(0, size, slot))
    return total / (1 << len(units))


def _normal_p(gains: Sequence[float]) -> float:
    spread = math.sqrt(sum(gain * gain for gain in gains))
    return 1.0 - NormalDist().cdf(sum(gains) / spread) if spread else 1.0


def _normal_bound(gains: Sequence[float], level: float) -> float:
    """Where the normal limit of the test stops rejecting: (sum - n x) / sqrt(sum (gain - x)^2) = z."""
    z, low, high = NormalDist().inv_cdf(1.0 - level), -1.0, sum(gains) / len(gains)
    for _ in range(40):
        middle = (low + high) / 2
        shifted = [gain - middle for gain in gains]
        spread = math.sqrt(sum(gain * gain for gain in shifted))
        if sum(shifted) >= z * spread:
            low = middle
        else:
            high = middle
    return math.floor(low / float(STEP)) * float(STEP)
