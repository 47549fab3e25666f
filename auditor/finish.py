"""The end of a run: where the live version stands against the base and the version that the run started from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from auditor import events as e
from auditor.crew import Work, scored
from auditor.evidence.splits import split
from auditor.findings import RunState, Score
from auditor.journal import Kept
from auditor.judging import retention_groups
from auditor.papers import Group, of_task
from auditor.peers import BASE
from auditor.tasks import Split
from common.metrics import timed


async def finish(work: Work) -> e.RunFinished:
    """Scores base, start and live on all holdout questions, start and live on all retention items; most is cached."""
    start = work.start.start_version
    live = (await work.crew.student.status()).live.version
    holdout = [of_task(task, Split.HOLDOUT, split(task.tau).holdout) for task in work.order.tasks]
    holdout = [group for group in holdout if group.items]
    retention = retention_groups(work)
    base_holdout = await standing(work, BASE, holdout)
    await standing(work, start, holdout)
    live_holdout = await standing(work, live, holdout)
    before, after = await standing(work, start, retention), await standing(work, live, retention)

    async def finished() -> e.RunFinished:
        run = (await work.crew.views.current()).run_as_event(work.order.run_id)
        figures = {
            "state": RunState.FINISHED,
            "end_time": datetime.now(UTC),
            "live_version": live,
            "base_holdout": base_holdout,
            "live_holdout": live_holdout,
            "retention_before": before,
            "retention_after": after,
        }
        return e.RunFinished(run=run.model_copy(update=figures))

    return await work.journal.step("finish", finished)


async def standing(work: Work, version: str, groups: Sequence[Group]) -> Score:
    """A version's score over all groups, one event a group."""
    total = Score()
    for group in groups:

        async def compute(group: Group = group) -> Kept[e.VersionScored]:
            with timed("answering"):
                progress = work.journal.progress("answering", work.order.settings.rounds, group.task_id)
                paper = (await work.examiner.examine([version], groups, progress))[version]
            return scored(version, paper.result(group), paper.cached, "final")

        total += (await work.journal.step(f"final/{version}/{group.name}", compute)).score
    return total
