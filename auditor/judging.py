"""Judges an update that was trained alone: the gates before promotion, cheapest first.

What follows a failed gate is not asked. Holdout is compared with the parent, and so are earlier accepted tasks; suites
and the tasks' own retention items with the version that the run started from, so that a run as a whole stays within the
bound. auditor/promotion.py calls `judge`; auditor/finish.py asks for the same retention groups at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from auditor import events as e
from auditor.crew import Winner, Work, answers_of
from auditor.examiner import Group, Marked, Paper, compare, of_suite, of_task
from auditor.findings import Gate, GateKind, ProtectedAnswer, Score
from auditor.gates.update import approval_gate, confirmation_gate, liveness_gate, retention_gate
from auditor.health import degenerate, drift, protected
from auditor.history import earlier_tasks
from auditor.journal import Kept
from auditor.projections import Projections
from auditor.splits import split
from auditor.tasks import Split, Task
from common.lora.proof import Liveness, LivenessProof
from common.metrics import timed
from common.types import Digest

# What an update may fail and be tried again at a smaller scale: what it does beside what it teaches.
SCALABLE = ([GateKind.RETENTION], [GateKind.DRIFT])


@dataclass
class Found:
    """What the gates have found so far. own: groups of the update's tasks; pooled: of all winners of the round."""

    own: list[Group]
    pooled: list[Group]
    gates: list[Gate] = field(default_factory=list)
    before: dict[str, Marked] = field(default_factory=dict)
    after: dict[str, Marked] = field(default_factory=dict)
    retention: list[tuple[str, Marked, Marked]] = field(default_factory=list)
    protected: tuple[ProtectedAnswer, ...] = ()
    proof: LivenessProof | None = None

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def totals(self, groups: Sequence[Group]) -> tuple[Score, Score]:
        """Scores before and after, over several groups."""
        asked = [group.name for group in groups if group.name in self.after]
        return (
            sum((self.before[name].score for name in asked), Score()),
            sum((self.after[name].score for name in asked), Score()),
        )


async def judge(
    work: Work, trained: e.UpdateTrained, winners: Sequence[Winner], pool: Sequence[Task], smaller: float
) -> Kept[e.UpdateJudged]:
    """All gates before promotion. winners: what the update consists of; pool: the tasks of all winners.

    smaller: the scale to try next if nothing but retention or drift speaks against the update; 0: none.
    """
    version, parent = trained.version.version, trained.version.parent_version
    own_ids = {winner.task.task_id for winner in winners}
    held_out = [of_task(task, Split.HOLDOUT, split(task.tau).holdout) for task in pool]
    pooled = [group for group in held_out if group.items]
    own = [group for group in pooled if group.task_id in own_ids]
    views = await work.crew.views.current()
    found = Found(own=own, pooled=pooled)
    found.gates.append(approval_gate(rejected_by(views, work.order.run_id, trained.edits)))
    if found.passed and pooled:
        paper = await examine(work, trained, version, pooled)
        found.proof = paper.proof
        found.gates.append(liveness_gate(paper))
        if paper.liveness is not Liveness.INVALID:
            found.after = dict(paper.results)
            found.before = dict((await examine(work, trained, parent, pooled)).results)
    if found.passed:
        found.gates.append(confirmation_gate(found.totals(own), found.totals(pooled)))
    if found.passed:
        found.retention = await retained(work, trained, winners)
        bound = work.order.settings.retention.max_drop
        found.gates.append(retention_gate(found.retention, bound, trained.version.scale))
    if found.passed:
        found.gates += await drift(work, trained)
    if found.passed:
        found.gates += await degenerate(work, trained, compared_groups(work, trained, found))
    if found.passed:
        gates, found.protected = await protected(work, trained)
        found.gates += gates
    return judgement(work, trained, found, smaller)


def compared_groups(work: Work, trained: e.UpdateTrained, found: Found) -> list[tuple[str, Group]]:
    """(version before, group) of everything that was asked before and after."""
    asked = [*found.pooled, *(old.group for _, old, _ in found.retention)]
    start, parent = work.start.start_version, trained.version.parent_version
    return [(start if group.split is Split.RETENTION else parent, group) for group in asked]


def rejected_by(views: Projections, run_id: str, edits: Sequence[Digest]) -> str:
    """The operator who rejected one of these edits, if anybody did."""
    return next((by for edit in edits if (by := views.rejected_by.get((run_id, edit.sha256)))), "")


def judgement(work: Work, trained: e.UpdateTrained, found: Found, smaller: float) -> Kept[e.UpdateJudged]:
    """What was found, as one event with the answers that it rests on."""
    before, after = found.before, found.after
    holdout = tuple(c for group in found.own if after for c in compare(before[group.name], after[group.name]))
    retained_items = tuple(c for _, old, new in found.retention for c in compare(old, new))
    holdout_before, holdout_after = found.totals(found.own)
    forgets_alone = [gate.kind for gate in found.gates if not gate.passed] in SCALABLE
    event = e.UpdateJudged(
        round=trained.round,
        version=trained.version.version,
        edits=trained.edits,
        gates=tuple(found.gates),
        accepted=found.passed,
        holdout_before=holdout_before,
        holdout_after=holdout_after,
        retention_before=sum((old.score for _, old, _ in found.retention), Score()),
        retention_after=sum((new.score for _, _, new in found.retention), Score()),
        scale=trained.version.scale,
        next_scale=smaller if forgets_alone else 0.0,
        record=e.UpdateJudged.Record(
            holdout=holdout,
            retention=retained_items,
            parent_version=trained.version.parent_version,
            retention_version=work.start.start_version,
            seed=trained.seed,
            task_ids=trained.task_ids,
            proof=found.proof,
            protected=found.protected,
        ),
    )
    told = (sha256 for answer in found.protected for sha256 in (answer.before, answer.after))
    return Kept(event, (*answers_of(holdout, retained_items), *told))


async def examine(work: Work, trained: e.UpdateTrained, version: str, groups: Sequence[Group]) -> Paper:
    with timed("answering"):
        progress = work.journal.progress("answering", trained.round, "")
        return (await work.examiner.examine([version], groups, progress))[version]


async def retained(work: Work, trained: e.UpdateTrained, winners: Sequence[Winner]) -> list[tuple[str, Marked, Marked]]:
    """(name, before, after) of every group that a version must go on answering."""
    parent = trained.version.parent_version
    contexts = [winner.task.context for winner in winners]
    earlier = await earlier_tasks(work.crew.recorder, await work.crew.views.current(), parent, contexts)
    suites = retention_groups(work)
    learned = [of_task(task, Split.HOLDOUT, split(task.tau).holdout) for task in earlier]
    learned = [group for group in learned if group.items]
    if not suites and not learned:
        return []
    after = await examine(work, trained, trained.version.version, [*suites, *learned])
    found: list[tuple[str, Marked, Marked]] = []
    for groups, reference in ((suites, work.start.start_version), (learned, parent)):
        if groups:
            before = await examine(work, trained, reference, groups)
            found += [(group.title, before.result(group), after.result(group)) for group in groups]
    return found


def retention_groups(work: Work) -> list[Group]:
    """The run's suites, and its tasks' own retention items."""
    own = [of_task(task, Split.RETENTION, task.retention) for task in work.order.tasks if task.retention]
    return [*(of_suite(suite) for suite in work.order.suites), *own]
