"""Racing: candidates that can no longer win get no further seeds (successive halving). Pure.

Successive halving (Jamieson and Talwalkar 2016): every candidate is trained on one seed, the better half on twice as
many, and so on; never fewer stay than the filter may keep. Where every edit above a threshold is kept, there is no
place to lose: there a candidate is stopped only when its remaining runs, were they perfect, could not bring it above.
Selection is all that this changes: promotion rests on the holdout, which no race sees. auditor/trials.py calls it.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor.evidence.filter import Reward, ranked
from auditor.tasks import FilterMode


def rungs(seeds: int) -> list[int]:
    """How many seeds every surviving candidate has had at each decision: 1, 2, 4, ... up to `seeds`."""
    steps = [1]
    while steps[-1] < seeds:
        steps.append(min(2 * steps[-1], seeds))
    return steps


def survivors(
    rewards: Sequence[Reward], *, mode: FilterMode, places: int, threshold: float, seeds_left: int
) -> list[Reward]:
    """Who goes on, best first. places: how many edits the filter keeps at most; seeds_left: seeds still to be spent."""
    # One whose trainings have all failed so far stays: nothing is known of it.
    able = [r for r in ranked(rewards) if not (r.runs and r.barred) and _can_pass(r, mode, threshold, seeds_left)]
    if mode is not FilterMode.TOP_K:
        return able
    stay = max(places, -(-len(rewards) // 2))
    cut = able[stay - 1 : stay]
    # Whoever equals the last one that stays has as good a claim.
    tied = {cut[0].merit} if cut else set()
    return [reward for reward in able if reward in able[:stay] or not reward.runs or reward.merit in tied]


def tied_for_a_place(rewards: Sequence[Reward], places: int, threshold: float) -> list[Reward]:
    """Edits whose gain equals that of the last one to get a place, if one of them goes without: to be measured once
    more. Who is not above the threshold gets no place, and has none to lose."""
    able = [reward for reward in ranked(rewards) if not reward.barred and reward.gain > threshold]
    if len(able) <= places:
        return []
    last = able[places - 1]
    tied = [reward for reward in able if reward.gain == last.gain]
    return tied if able[places].gain == last.gain else []


def behind(
    before: Sequence[Reward], after: Sequence[Reward], tied: Sequence[Reward], *, places: int, threshold: float
) -> list[Reward]:
    """Who had gained less than those who tied, and has no place once these were measured again.

    A tie is settled among those who tie: nobody wins by having been measured less. But a place that they turn out not
    to be worth stays open to the others. before, after: the rewards without and with the additional seed.
    """
    least = min((reward.gain for reward in tied), default=0.0)
    less = {reward.edit for reward in before if reward.gain < least}
    fit = [r for r in after if r.edit not in less and not r.barred and r.gain > threshold]
    return [reward for reward in after if reward.edit in less] if len(fit) >= places else []


def _can_pass(reward: Reward, mode: FilterMode, threshold: float, seeds_left: int) -> bool:
    if mode is FilterMode.SOLVED:
        return reward.solved or not reward.runs
    runs = len(reward.runs) + seeds_left
    best = (sum(map(sum, reward.runs)) + seeds_left * reward.questions) / runs
    return best - sum(reward.before) > threshold * reward.questions
