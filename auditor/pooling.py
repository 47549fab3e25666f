"""The pooled verdict of a round: do its winners, taken together, gain on questions that nobody chose them by?

A task with fewer than five holdout questions decides nothing by itself. So the winners of such tasks are trained anew
on the round's parent, with fresh seeds and in one batch, asked their own holdout questions, and tested together by the
exact sign-flip test. auditor/promotion.py asks once a round; each winner's own questions must not lose all the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from auditor import events as e
from auditor.crew import Winner, Work, answers_of
from auditor.evidence.filter import paired_gains
from auditor.evidence.sign_flip import decidable
from auditor.evidence.splits import split
from auditor.evidence.verdict import verdict
from auditor.findings import Comparison, Score
from auditor.journal import Kept
from auditor.papers import Group, Marked, compare, of_task
from auditor.peers import TrainCandidate, TrainOrder
from auditor.tasks import Split
from auditor.trials import requests
from common.canonical import derive_seed
from common.lora.proof import Liveness
from common.metrics import timed
from common.versions import FailedCandidate, Version


def held_out(winner: Winner) -> Group:
    task = winner.task
    return of_task(task, Split.HOLDOUT, split(task.tau).holdout)


def tests_of(winners: Sequence[Winner]) -> Counter[str]:
    """By task: how many winners are tested on the same holdout questions, and share the level."""
    return Counter(winner.task.task_id for winner in winners)


def undecided(winners: Sequence[Winner], level: float) -> list[Winner]:
    """Winners whose own holdout questions cannot decide, but are some."""
    tests = tests_of(winners)
    return [
        winner
        for winner in winners
        if (items := held_out(winner).items) and not decidable(len(items), level / tests[winner.task.task_id])
    ]


async def pool(work: Work, round_: int, theta: str, winners: Sequence[Winner]) -> e.WinnersPooled | None:
    """The round's pooled verdict; None where every winner's task decides by itself."""
    small = undecided(winners, work.order.settings.level)
    if not small:
        return None

    async def judge_together() -> Kept[e.WinnersPooled]:
        versions = await train_anew(work, round_, theta, small)
        return await judged(work, round_, theta, small, versions)

    return await work.journal.step(f"{round_}/pool", judge_together)


async def train_anew(work: Work, round_: int, theta: str, winners: Sequence[Winner]) -> dict[str, list[Version]]:
    """The winners' edits on theta, with seeds that no trial had: by edit digest; without those that failed."""
    settings = work.order.settings
    candidates = {
        f"{name}:{seed}": TrainCandidate(candidate_id=f"{name}:{seed}", edit=edit, seed=seed)
        for name, edit in {winner.edit.digest.sha256: winner.edit for winner in winners}.items()
        for seed in [derive_seed(settings.seed, "pool", round_, i) for i in range(settings.confirmation_seeds)]
    }
    made: dict[str, list[Version]] = defaultdict(list)
    for batch in requests(list(candidates.values()), work.start.record.limits.max_candidates):
        names = [candidate.candidate_id for candidate in batch]
        order = TrainOrder(
            request_id=work.journal.request_id("pool", [round_, theta, names]),
            parent_version=theta,
            candidates=tuple(batch),
        )
        with timed("training"):
            async for answer in work.crew.student.train(order, work.journal.progress("training", round_, "")):
                if not isinstance(answer, FailedCandidate):
                    made[candidates[answer.candidate_id].edit.digest.sha256].append(answer.version)
    return made


async def judged(
    work: Work, round_: int, theta: str, winners: Sequence[Winner], versions: Mapping[str, Sequence[Version]]
) -> Kept[e.WinnersPooled]:
    """Asks each winner's versions its own task's holdout questions. One not proven to answer counts as no run."""
    progress = work.journal.progress("answering", round_, "")
    groups = {winner.task.task_id: held_out(winner) for winner in winners}
    with timed("answering"):
        before = await work.examiner.examine([theta], list(groups.values()), progress)
        runs: dict[str, list[Marked]] = defaultdict(list)
        for winner in winners:
            group = groups[winner.task.task_id]
            names = [version.version for version in versions.get(winner.edit.digest.sha256, ())]
            papers = (await work.examiner.examine(names, [group], progress)).values() if names else ()
            runs[group.task_id] += [paper.result(group) for paper in papers if paper.liveness is not Liveness.INVALID]
    gains: list[float] = []
    comparisons: list[Comparison] = []
    scores = [Score(), Score()]
    for task_id, group in groups.items():
        old = before[theta].result(group)
        gains += paired_gains([m.score for m in old.marks], [[m.score for m in new.marks] for new in runs[task_id]])
        for new in runs[task_id]:
            comparisons += compare(old, new)
            scores = [scores[0] + old.score, scores[1] + new.score]
    found = verdict(gains, work.order.settings.level)
    event = e.WinnersPooled(
        round=round_,
        edits=tuple(winner.edit.digest for winner in winners),
        task_ids=tuple(groups),
        before=scores[0],
        after=scores[1],
        gain=found.gain,
        lower=found.lower,
        p_value=found.p_value,
        level=found.level,
        passed=found.gained,
        record=e.WinnersPooled.Record(
            comparisons=tuple(comparisons), versions=tuple(version for made in versions.values() for version in made)
        ),
    )
    return Kept(event, answers_of(tuple(comparisons)))
