"""The ReST^EM filter: which of a context's edits earned a place this round. Pure; auditor/loop.py calls it once a task.

ReST^EM (Singh et al. 2023, arXiv 2312.06585) keeps rewarded samples, capped per input; SEAL (arXiv 2506.10943) the best
of K. Both are here, and neither keeps an edit that is no better than the parent. Only rewards measured on one parent
and one policy version may come in together. Tests and bounds hold for all of a task's candidates together: of five
edits that teach nothing, one always looks best.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from auditor.evidence.sign_flip import decidable, holm, lower_bound, p_value, upper_bound
from auditor.findings import EditVerdict
from auditor.tasks import FilterMode
from common.types import Digest, Domain


class Reward(Domain):
    """What an edit's candidates scored on the reward questions.

    before: the parent's mark of each question, 0..1; runs: the marks of each inner run that counts, in the same order;
    barred: why the edit cannot be kept; examples: how many it trains on.
    """

    edit: Digest
    before: tuple[float, ...]
    runs: tuple[tuple[float, ...], ...]
    barred: str = ""
    examples: int = 0

    @property
    def questions(self) -> int:
        return len(self.before)

    @cached_property
    def gains(self) -> tuple[float, ...]:
        """Per question: mean over the runs, minus the parent's mark."""
        return paired_gains(self.before, self.runs)

    @property
    def gain(self) -> float:
        """Mean over questions and runs, minus the baseline's; exact zero for no change."""
        if not self.questions or not self.runs:
            return 0.0
        count = len(self.runs)
        return (sum(map(sum, self.runs)) - count * sum(self.before)) / (count * self.questions)

    @property
    def solved(self) -> bool:
        """Every inner run answers every question."""
        return bool(self.runs) and self.questions > 0 and all(mark >= 1 for run in self.runs for mark in run)

    @cached_property
    def merit(self) -> tuple[float, ...]:
        """What speaks for the edit, to be compared in order.

        Its gain; the test of it; how much its worst run scored; how much it broke that the parent knew; and, when all
        this is equal, how few examples it took.
        """
        worst = min(map(sum, self.runs), default=0.0)
        broken = sum(gain for gain in self.gains if gain < 0)
        return (round(self.gain, 9), -p_value(self.gains), worst, round(broken, 9), -self.examples)


def paired_gains(before: Sequence[float], runs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Gain of each question, averaged over runs; all zero without a run."""
    if not runs:
        return (0.0,) * len(before)
    return tuple(sum(marks) / len(runs) - old for old, *marks in zip(before, *runs, strict=True))


def ranked(rewards: Sequence[Reward]) -> list[Reward]:
    """Best first, by evidence; the digest orders only what no evidence tells apart."""
    return sorted(rewards, key=lambda r: (bool(r.barred), *(-value for value in r.merit), r.edit.sha256))


def rest_em(
    rewards: Sequence[Reward],
    *,
    mode: FilterMode,
    top_k: int,
    threshold: float,
    cap: int,
    level: float = 0.05,
    by_lower_bound: bool = False,
) -> tuple[EditVerdict, ...]:
    """One verdict an edit, best first; ties are resolved by `Reward.merit`.

    mode POSITIVE keeps gains above the threshold; TOP_K the best top_k of those; SOLVED edits that answer every reward
    question of a task that the parent did not solve. At most `cap` are kept. by_lower_bound: it is the gain's lower
    confidence bound that must exceed the threshold, at a level shared by all candidates. Where there are too few
    questions for a bound, the mean is compared and the verdict is marked as undecided.
    """
    in_order = ranked(rewards)
    shared = level / max(1, len(rewards))
    adjusted = dict(zip([r.edit for r in rewards], holm([p_value(r.gains) for r in rewards]), strict=True))
    places = min(cap, top_k) if mode is FilterMode.TOP_K else cap
    verdicts: list[EditVerdict] = []
    last_kept: Reward | None = None
    for reward in in_order:
        undecided = not decidable(reward.questions, shared)
        lower, upper = lower_bound(reward.gains, shared), upper_bound(reward.gains, shared)
        bound = lower if by_lower_bound and not undecided else None
        reason = _refusal(reward, mode, threshold, bound)
        if not reason and places == 0:
            tied = last_kept is not None and last_kept.merit == reward.merit
            reason = "equal to the last one kept in all that was measured" if tied else "others have more evidence"
        if not reason:
            places -= 1
            last_kept = reward
        verdicts.append(
            EditVerdict(
                edit=reward.edit,
                kept=not reason,
                gain=reward.gain,
                undecided=undecided,
                reason=reason or _praise(reward),
                lower=lower,
                upper=upper,
                p_value=adjusted[reward.edit],
                questions=reward.questions,
                runs=len(reward.runs),
            )
        )
    return tuple(verdicts)


def _refusal(reward: Reward, mode: FilterMode, threshold: float, bound: float | None) -> str:
    if reward.barred:
        return reward.barred
    if mode is FilterMode.SOLVED:
        if sum(reward.before) >= reward.questions:
            return "the parent solves every question already"
        return "" if reward.solved else "some reward questions stay unsolved"
    if bound is not None:
        return "" if bound > threshold else f"the gain's lower bound {bound:+.2f} is not above {threshold:+.3f}"
    return "" if reward.gain > threshold else f"gain {reward.gain:+.3f} is not above {threshold:+.3f}"


def _praise(reward: Reward) -> str:
    return f"gain {reward.gain:+.3f} on {reward.questions} reward questions, {_trials(len(reward.runs))}"


def _trials(count: int) -> str:
    return "one trial training" if count == 1 else f"{count} trial trainings"
