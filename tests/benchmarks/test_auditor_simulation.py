"""The simulated students spread as published, and what the simulation decides is what the filter decides."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest

from auditor.evidence.filter import ranked, rest_em
from auditor.tasks import FilterMode
from benchmarks.auditor import LEVEL, simulate, trial
from benchmarks.synthetic_students import BASE, SPREAD_BETWEEN_RUNS, SyntheticEdit, base_marks, edits


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.2])
def test_runs_of_one_edit_spread_as_published_around_its_true_gain(gain: float) -> None:
    rng = random.Random(1)
    edit = SyntheticEdit.of(gain)
    means = [fmean(edit.run(base_marks(5, rng), rng)) for _ in range(20_000)]
    assert fmean(means) == pytest.approx(BASE + gain, abs=0.01)
    within = []
    for _ in range(2_000):
        before = base_marks(5, rng)
        within.append(stdev([fmean(edit.run(before, rng)) for _ in range(6)]) ** 2)
    assert fmean(within) ** 0.5 == pytest.approx(SPREAD_BETWEEN_RUNS, abs=0.01)


def test_winner_of_a_simulated_trial_is_the_one_that_the_filter_keeps() -> None:
    rng = random.Random(2)
    for _ in range(40):
        rewards, _ = trial(edits(5, 0.1, 0.075, rng), base_marks(8, rng), rng)
        kept = [v.edit for v in rest_em(rewards, mode=FilterMode.TOP_K, top_k=1, threshold=0, cap=10) if v.kept]
        best = ranked(rewards)[0]
        assert kept == ([best.edit] if best.gain > 0 and not best.barred else [])


def test_nothing_gained_is_accepted_no_more_often_than_the_level_says() -> None:
    """And what is confirmed is reported without bias, while the reference's rule flatters."""
    cell = simulate(10, 0.0, 0.0, rounds=600, confirmation_seeds=3, seed=5)
    assert cell.rate <= LEVEL
    assert abs(fmean(cell.bias)) < 3 * stdev(cell.bias) / len(cell.bias) ** 0.5
    assert fmean(cell.bias_of_reference) > 0.05
    helped = simulate(10, 0.2, 0.0, rounds=200, confirmation_seeds=3, seed=5)
    assert helped.rate > 0.4
