"""How often the auditor's judgement is wrong: a Monte Carlo simulation on synthetic students, without a model.

`python -m benchmarks.auditor`. Five candidates a task, three seeds each with racing; the winner is trained anew with
three fresh seeds and confirmed on other questions, at a level of 0.05: the auditor's own code decides. Sizes are
questions on each side of the split. The reference's rule is beside it: best of five by the mean of three runs, no
baseline, no confirmation. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean, stdev

from auditor.evidence.filter import Reward, paired_gains, ranked
from auditor.evidence.racing import rungs, survivors
from auditor.evidence.verdict import verdict
from auditor.tasks import FilterMode
from benchmarks.synthetic_students import SPREAD_BETWEEN_EDITS, SyntheticEdit, base_marks, edits
from common.types import Digest

SIZES = (5, 10, 30)
CANDIDATES, SEEDS, LEVEL = 5, 3, 0.05
REFERENCE_SIZE = 5


@dataclass
class Cell:
    """What was counted for one size and true gain. bias: reported minus true, of every confirmed winner."""

    questions: int
    gain: float
    spread: float
    rounds: int = 0
    winners: int = 0
    accepted: int = 0
    bias: list[float] = field(default_factory=list)
    bias_of_accepted: list[float] = field(default_factory=list)
    bias_of_reference: list[float] = field(default_factory=list)
    trainings: int = 0

    @property
    def rate(self) -> float:
        return self.accepted / self.rounds


def trial(made: Sequence[SyntheticEdit], before: tuple[float, ...], rng: random.Random) -> tuple[list[Reward], int]:
    """Rewards of all candidates, and how many trainings that took.

    Raced by the rules of auditor/trials.py, but for the one more seed that a tie costs there.
    """
    runs: list[list[tuple[float, ...]]] = [[] for _ in made]
    alive, done, trainings = set(range(len(made))), 0, 0
    rewards: list[Reward] = []
    for rung in rungs(SEEDS):
        for place in sorted(alive):
            runs[place] += [made[place].run(before, rng) for _ in range(done, rung)]
            trainings += rung - done
        rewards = [
            Reward(
                edit=Digest(sha256=f"{place:064x}"),
                before=before,
                runs=tuple(own),
                barred="" if place in alive else "stopped",
            )
            for place, own in enumerate(runs)
        ]
        done = rung
        stay = survivors(
            [rewards[place] for place in sorted(alive)],
            mode=FilterMode.TOP_K,
            places=1,
            threshold=0.0,
            seeds_left=SEEDS - rung,
        )
        alive &= {int(reward.edit.sha256, 16) for reward in stay}
    return rewards, trainings


def play(cell: Cell, rng: random.Random, confirmation_seeds: int) -> None:
    """One task and round."""
    made = edits(CANDIDATES, cell.gain, cell.spread, rng)
    before = base_marks(cell.questions, rng)
    rewards, trainings = trial(made, before, rng)
    cell.rounds += 1
    cell.trainings += trainings
    best = ranked(rewards)[0]
    if best.gain > 0 and not best.barred:
        winner = made[int(best.edit.sha256, 16)]
        held_out = base_marks(cell.questions, rng)
        runs = [winner.run(held_out, rng) for _ in range(confirmation_seeds)]
        found = verdict(paired_gains(held_out, runs), LEVEL)
        cell.winners += 1
        cell.bias.append(found.gain - winner.true_gain)
        if found.gained:
            cell.accepted += 1
            cell.bias_of_accepted.append(found.gain - winner.true_gain)
    accuracies = [fmean(fmean(edit.run(before, rng)) for _ in range(SEEDS)) for edit in made]
    chosen = max(range(len(made)), key=lambda place: accuracies[place])
    cell.bias_of_reference.append(accuracies[chosen] - fmean([made[chosen].stays] * 3 + [made[chosen].becomes] * 7))


def simulate(size: int, gain: float, spread: float, *, rounds: int, confirmation_seeds: int, seed: int) -> Cell:
    cell = Cell(size, gain, spread)
    rng = random.Random(f"{seed}/{size}/{gain}/{spread}/{confirmation_seeds}")  # noqa: S311 - a simulation
    for _ in range(rounds):
        play(cell, rng, confirmation_seeds)
    return cell


def mean_and_error(values: Sequence[float]) -> str:
    """Mean and its standard error."""
    if len(values) < 2:
        return "-"
    return f"{fmean(values):+.3f} ±{stdev(values) / sqrt(len(values)):.3f}"


def row(cell: Cell, kind: str) -> str:
    error = sqrt(cell.rate * (1 - cell.rate) / cell.rounds)
    return (
        f"{cell.questions:>9} {cell.gain:>5.2f} {cell.spread:>6.3f}  {kind} {cell.rate:.3f} ±{error:.3f}   "
        f"{mean_and_error(cell.bias):>16} {mean_and_error(cell.bias_of_accepted):>16} "
        f"{mean_and_error(cell.bias_of_reference):>16}   {cell.trainings / cell.rounds:.1f} of {CANDIDATES * SEEDS}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4_000, help="simulated tasks a cell (default 4,000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(
        f"{'questions':>9} {'gain':>5} {'spread':>6}  {'accepted':<21} {'curse':>13} {'of accepted':>16} "
        f"{'reference':>16}   trainings"
    )
    nothing, something = [], []
    for confirmation_seeds in (SEEDS, 1):
        print(f"confirmed by {confirmation_seeds} fresh training(s)")
        for size in SIZES:
            cells = [
                simulate(
                    size, gain, spread, rounds=options.rounds, confirmation_seeds=confirmation_seeds, seed=options.seed
                )
                for gain, spread in ((0.0, 0.0), (0.0, SPREAD_BETWEEN_EDITS), (0.2, SPREAD_BETWEEN_EDITS))
            ]
            for cell, kind in zip(cells, ("false", "mixed", "power"), strict=True):
                print(row(cell, kind), flush=True)
            if confirmation_seeds == SEEDS:
                nothing.append(cells[0])
                something += cells[1:]
    every = [*nothing, *something]
    result = {
        "false_accept_rate": round(max(cell.rate for cell in nothing), 4),
        "power": round(next(c.rate for c in something if c.questions == SIZES[-1] and c.gain > 0), 4),
        "curse_bias": round(fmean(value for cell in every for value in cell.bias), 4),
        "curse_bias_reference": round(
            fmean(value for cell in every if cell.questions == REFERENCE_SIZE for value in cell.bias_of_reference), 4
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
