"""Judges an update that was trained alone: the gates before promotion, cheapest first.

What follows a failed gate is not asked. Holdout is compared with the parent, and so are earlier accepted tasks; suites
and the tasks' own retention items with the version that the run started from, so that a run as a whole stays within the
bound. auditor/promotion.py calls `judge`; auditor/finish.py asks for the same retention groups at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from auditor import events as e
from auditor.crew import Winner, Work, answers_of
from auditor.evidence.filter import paired_gains
from auditor.evidence.scaling import Outcome, next_scale
from auditor.evidence.splits import split
from auditor.evidence.verdict import verdict
from auditor.findings import Gate, GateKind, ProtectedAnswer, Score
from auditor.gates.update import Confirmation, approval_gate, confirmation_gate, liveness_gate, retention_gate
from auditor.health import degenerate, drift, protected
from auditor.history import History
from auditor.journal import Kept
from auditor.papers import Group, Marked, Paper, compare, of_suite, of_task
from auditor.projections import Projections
from auditor.superseding import still_said
from auditor.tasks import Split, Task
from common.lora.proof import Liveness, LivenessProof
from common.metrics import timed
from common.types import Digest

# Failing nothing but these, an update is tried at a smaller scale before it is rejected.
FORGETTING = frozenset({GateKind.RETENTION, GateKind.DRIFT})
# Failing nothing but these, a smaller scale is too small.
LEARNING = frozenset({GateKind.CONFIRMATION, GateKind.SUPERSEDED})
# Names the questions of all earlier accepted tasks among the retention figures; behind a slash, those of one.
EARLIER = "earlier tasks"


@dataclass(frozen=True)
class Case:
    """An update on trial. winners: what it consists of; tested: winners that share its holdout questions.

    pooled: the round's pooled verdict, if any; tried: what was found at other scales.
    """

    trained: e.UpdateTrained
    winners: Sequence[Winner]
    tested: int = 1
    pooled: e.WinnersPooled | None = None
    tried: Mapping[float, Outcome] = field(default_factory=dict)


@dataclass
class Found:
    """What the gates have found so far. held_out: holdout groups of the update's tasks."""

    held_out: list[Group]
    gates: list[Gate] = field(default_factory=list)
    before: dict[str, Marked] = field(default_factory=dict)
    # Of every fresh training; the first is the one that is to be promoted.
    after: list[Mapping[str, Marked]] = field(default_factory=list)
    retention: list[tuple[str, Marked, Marked]] = field(default_factory=list)
    protected: tuple[ProtectedAnswer, ...] = ()
    proof: LivenessProof | None = None

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def totals(self) -> tuple[Score, Score]:
        """Holdout scores before and after."""
        asked = [group.name for group in self.held_out if self.after]
        return (
            sum((self.before[name].score for name in asked), Score()),
            sum((self.after[0][name].score for name in asked), Score()),
        )

    def confirmation(self, level: float, tested: int, scale: float) -> Confirmation:
        before, runs = marks_of(self.before, self.held_out), [marks_of(paper, self.held_out) for paper in self.after]
        return Confirmation(
            verdict(paired_gains(before, runs), level, tested), *self.totals(), runs=len(runs), scale=scale
        )


def marks_of(paper: Mapping[str, Marked], groups: Sequence[Group]) -> list[float]:
    return [mark.score for group in groups for mark in paper[group.name].marks]


async def judge(work: Work, case: Case) -> Kept[e.UpdateJudged]:
    """All gates before promotion, and which scale to try next."""
    trained, settings = case.trained, work.order.settings
    version, parent = trained.version.version, trained.version.parent_version
    tasks = {winner.task.task_id: winner.task for winner in case.winners}
    groups = [of_task(task, Split.HOLDOUT, split(task.tau).holdout) for task in tasks.values()]
    found = Found([group for group in groups if group.items])
    views = await work.crew.views.current()
    found.gates.append(approval_gate(rejected_by(views, work.order.run_id, trained.edits)))
    if found.passed and found.held_out:
        paper = await examine(work, trained, version, found.held_out)
        found.proof = paper.proof
        found.gates.append(liveness_gate(paper))
        if paper.liveness is not Liveness.INVALID:
            found.after = [paper.results, *await repeats(work, trained, found.held_out)]
            found.before = dict((await examine(work, trained, parent, found.held_out)).results)
    if found.passed:
        found.gates.append(
            confirmation_gate(found.confirmation(settings.level, case.tested, trained.version.scale), case.pooled)
        )
    if found.passed:
        history = await History.of(work.crew.recorder, await work.crew.views.current(), parent)
        gate = await still_said(work, trained, history.superseded(list(tasks.values())))
        found.gates += [gate] if gate is not None else []
    if found.passed:
        found.retention = await retained(work, trained, history.retained(list(tasks.values())))
        bound = settings.retention.max_drop
        found.gates.append(retention_gate(found.retention, bound, settings.level, trained.version.scale))
    await on_the_whole(work, trained, found)
    return judgement(work, case, found)


async def on_the_whole(work: Work, trained: e.UpdateTrained, found: Found) -> None:
    """The gates on what became of the model, whatever it was taught."""
    if found.passed:
        found.gates += await drift(work, trained)
    if found.passed:
        found.gates += await degenerate(work, trained, compared_groups(work, trained, found))
    if found.passed:
        gates, found.protected = await protected(work, trained)
        found.gates += gates


async def repeats(work: Work, trained: e.UpdateTrained, groups: Sequence[Group]) -> list[Mapping[str, Marked]]:
    """Results of the other fresh trainings; one that is not proven to answer is left out."""
    papers = [await examine(work, trained, version.version, groups) for version in trained.record.repeats]
    return [paper.results for paper in papers if paper.liveness is not Liveness.INVALID]


def compared_groups(work: Work, trained: e.UpdateTrained, found: Found) -> list[tuple[str, Group]]:
    """(version before, group) of all questions that were asked before and after, and are the auditor's own."""
    asked = [*found.held_out, *(old.group for _, old, _ in found.retention)]
    start, parent = work.start.start_version, trained.version.parent_version
    own = [group for group in asked if group.measured is None]
    return [(start if group.split is Split.RETENTION else parent, group) for group in own]


def rejected_by(views: Projections, run_id: str, edits: Sequence[Digest]) -> str:
    """The operator who rejected one of these edits, if anybody did."""
    return next((by for edit in edits if (by := views.rejected_by.get((run_id, edit.sha256)))), "")


def outcome_of(gates: Sequence[Gate]) -> Outcome:
    """What the gates say of a scale."""
    failed = {gate.kind for gate in gates if not gate.passed}
    if not failed:
        return Outcome.PASSED
    if failed <= FORGETTING:
        return Outcome.FORGETS
    return Outcome.LEARNS_TOO_LITTLE if failed <= LEARNING else Outcome.FAILED


def judgement(work: Work, case: Case, found: Found) -> Kept[e.UpdateJudged]:
    """What was found, as one event with the answers that it rests on."""
    trained = case.trained
    scale = trained.version.scale
    asked = found.held_out if found.after else []
    holdout = tuple(c for group in asked for c in compare(found.before[group.name], found.after[0][group.name]))
    retained_items = tuple(c for _, old, new in found.retention for c in compare(old, new))
    holdout_before, holdout_after = found.totals()
    following = next_scale({**case.tried, scale: outcome_of(found.gates)}, scale, work.order.settings.min_scale)
    event = e.UpdateJudged(
        round=trained.round,
        version=trained.version.version,
        edits=trained.edits,
        gates=tuple(found.gates),
        accepted=found.passed and not following,
        holdout_before=holdout_before,
        holdout_after=holdout_after,
        retention_before=sum((old.score for _, old, _ in found.retention), Score()),
        retention_after=sum((new.score for _, _, new in found.retention), Score()),
        scale=scale,
        next_scale=following,
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


async def retained(work: Work, trained: e.UpdateTrained, earlier: Sequence[Task]) -> list[tuple[str, Marked, Marked]]:
    """(name, before, after) of every group that a version must go on answering."""
    parent = trained.version.parent_version
    suites = retention_groups(work)
    learned = [group for task in earlier for group in tau_groups(task)]
    if not suites and not learned:
        return []
    after = await examine(work, trained, trained.version.version, [*suites, *learned])
    found: list[tuple[str, Marked, Marked]] = []
    for groups, reference in ((suites, work.start.start_version), (learned, parent)):
        if groups:
            before = await examine(work, trained, reference, groups)
            # Each task by itself, and all of them together.
            prefix = f"{EARLIER}/" if groups is learned else ""
            found += [(f"{prefix}{group.title}", before.result(group), after.result(group)) for group in groups]
    return found


def tau_groups(task: Task) -> list[Group]:
    """All of a task's questions, both sides of its split."""
    tau = split(task.tau)
    groups = [of_task(task, Split.REWARD, tau.reward), of_task(task, Split.HOLDOUT, tau.holdout)]
    return [group for group in groups if group.items]


def retention_groups(work: Work) -> list[Group]:
    """The run's suites, and its tasks' own retention items."""
    own = [of_task(task, Split.RETENTION, task.retention) for task in work.order.tasks if task.retention]
    return [*(of_suite(suite) for suite in work.order.suites), *own]
