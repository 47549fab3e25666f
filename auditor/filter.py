"""The ReST^EM filter: which of a context's edits earned a place this round. Pure; auditor/loop.py calls it once a task.

ReST^EM (Singh et al. 2023, arXiv 2312.06585) keeps rewarded samples, capped per input; SEAL (arXiv 2506.10943) the best
of K. Both are here, and neither keeps an edit that is no better than the parent. Only rewards measured on one parent
and one policy version may come in together.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor.findings import EditVerdict
from auditor.tasks import FilterMode
from common.types import Digest, Domain

DECIDING_QUESTIONS = 5  # fewer say nothing by themselves


class Reward(Domain):
    """What an edit's candidates scored on the reward questions.

    correct: sum of marks of each inner run that counts; before: the parent's; barred: why it cannot be kept.
    """

    edit: Digest
    questions: int
    before: float
    correct: tuple[float, ...]
    barred: str = ""

    @property
    def gain(self) -> float:
        """Mean over questions and seeds, minus the baseline's; exact zero for no change."""
        if not self.questions or not self.correct:
            return 0.0
        runs = len(self.correct)
        return (sum(self.correct) - runs * self.before) / (runs * self.questions)

    @property
    def solved(self) -> bool:
        """Every inner run answers every question."""
        return bool(self.correct) and self.questions > 0 and all(c >= self.questions for c in self.correct)


def rest_em(
    rewards: Sequence[Reward], *, mode: FilterMode, top_k: int, threshold: float, cap: int
) -> tuple[EditVerdict, ...]:
    """One verdict an edit, best first. Ties go to the smaller digest, and the verdict says so.

    mode POSITIVE keeps gains above the threshold; TOP_K the best top_k of those; SOLVED edits that answer every reward
    question of a task that the parent did not solve. At most `cap` are kept.
    """
    ranked = sorted(rewards, key=lambda r: (bool(r.barred), -r.gain, r.edit.sha256))
    places = min(cap, top_k) if mode is FilterMode.TOP_K else cap
    verdicts: list[EditVerdict] = []
    last_kept: Reward | None = None
    for reward in ranked:
        reason = _refusal(reward, mode, threshold)
        if not reason and places == 0:
            tied = last_kept is not None and last_kept.gain == reward.gain
            reason = "tied with the last place; digest order decides" if tied else "others gained more"
        if not reason:
            places -= 1
            last_kept = reward
        verdicts.append(
            EditVerdict(
                edit=reward.edit,
                kept=not reason,
                gain=reward.gain,
                undecided=reward.questions < DECIDING_QUESTIONS,
                reason=reason or _praise(reward),
            )
        )
    return tuple(verdicts)


def _refusal(reward: Reward, mode: FilterMode, threshold: float) -> str:
    if reward.barred:
        return reward.barred
    if mode is FilterMode.SOLVED:
        if reward.before >= reward.questions:
            return "the parent solves every question already"
        return "" if reward.solved else "some reward questions stay unsolved"
    return "" if reward.gain > threshold else f"gain {reward.gain:+.3f} is not above {threshold:+.3f}"


def _praise(reward: Reward) -> str:
    return f"gain {reward.gain:+.3f} on {reward.questions} reward questions, {_trials(len(reward.correct))}"


def _trials(count: int) -> str:
    return "one trial training" if count == 1 else f"{count} trial trainings"
