"""The cross-split audit: on updates that were decided, the reward and holdout questions swap their roles.

An honest reward predicts the holdout, and the promoted training does as well on the reward questions as its trials did.
Where the two differ by much, the reward is being gamed, or the split was lucky. What is found is reported and nothing
else: no filter, gate or Learn ever reads it, so the holdout stays unspent. auditor/promotion.py asks after a decision.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor import events as e
from auditor.crew import Winner, Work, answers_of
from auditor.evidence.splits import split
from auditor.findings import Comparison
from auditor.journal import Kept
from auditor.papers import Group, compare, of_task
from auditor.peers import BASE
from auditor.tasks import Split
from common.canonical import derive_seed
from common.lora.proof import Liveness
from common.metrics import timed

RANGE = 2**63  # of seeds


async def audit(work: Work, name: str, judged: e.UpdateJudged, winners: Sequence[Winner]) -> e.SplitsSwapped | None:
    """Swaps the splits of one decided update, if the sample has it. name: of the update's steps."""
    share = work.order.settings.cross_split_share
    drawn = derive_seed(work.order.settings.seed, "cross-split", name) < share * RANGE
    if not (drawn and judged.version and judged.holdout_after.questions):
        return None
    return await work.journal.step(f"{name}/swap", lambda: swapped(work, judged, winners))


async def swapped(work: Work, judged: e.UpdateJudged, winners: Sequence[Winner]) -> Kept[e.SplitsSwapped]:
    """The promoted (or rejected) training on the reward questions, and the winners' trials on the holdout questions."""
    tasks = {winner.task.task_id: winner.task for winner in winners}
    rewards = [of_task(task, Split.REWARD, split(task.tau).reward) for task in tasks.values()]
    found: list[Comparison] = []
    for group in rewards:
        found += await compared(work, judged.round, judged.record.parent_version, judged.version, group)
    on_reward = mean_gain(found)
    trials: list[Comparison] = []
    for winner in winners:
        group = of_task(winner.task, Split.HOLDOUT, split(winner.task.tau).holdout)
        for theta, version in trials_of(work, judged.round, winner):
            trials += await compared(work, judged.round, theta, version, group)
    event = e.SplitsSwapped(
        round=judged.round,
        version=judged.version,
        task_ids=tuple(tasks),
        gain_on_reward=on_reward,
        gain_on_holdout=mean_gain(trials),
        reward=sum(winner.gain for winner in winners) / len(winners),
        confirmation=judged.holdout_after.mean - judged.holdout_before.mean,
        record=e.SplitsSwapped.Record(comparisons=(*found, *trials)),
    )
    return Kept(event, answers_of(event.record.comparisons))


def trials_of(work: Work, round_: int, winner: Winner) -> list[tuple[str, str]]:
    """(parent, version) of each trial training of a winner, as the journal has them."""
    prefix = f"{round_}/{winner.task.task_id}/score/{winner.edit.digest.sha256}:"
    return [
        (scored.record.parent_version or BASE, scored.version)
        for scored in work.journal.every(prefix)
        if isinstance(scored, e.CandidateScored)
    ]


async def compared(work: Work, round_: int, before: str, after: str, group: Group) -> list[Comparison]:
    """A version against its parent; nothing of one that is not proven to answer."""
    if not group.items:
        return []
    progress = work.journal.progress("answering", round_, group.task_id)
    with timed("answering"):
        papers = await work.examiner.examine([before, after], [group], progress)
    if Liveness.INVALID in {papers[before].liveness, papers[after].liveness}:
        return []
    return list(compare(papers[before].result(group), papers[after].result(group)))


def mean_gain(found: Sequence[Comparison]) -> float:
    return sum(c.score_after - c.score_before for c in found) / len(found) if found else 0.0
