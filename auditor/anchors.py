"""Anchors: the frozen base, asked again at the start of every run, must answer as it did when it was first asked.

Every judgement compares answers of today with baselines that may have been cached long ago. The base never changes;
so if its marks move by more than they do between two immediate repeats, evaluation itself has drifted (another build,
other threads, other weights), and no comparison means anything. The run then says so and stops, unless it was
ordered to take what the base answers now as the new reference: cached answers count no longer from then on.
auditor/loop.py calls `check` when a run begins.
"""

from __future__ import annotations

from auditor import events as e
from auditor.crew import Work, answers_of
from auditor.journal import Kept
from auditor.keys import GraderKind
from auditor.papers import Group, Marked
from auditor.peers import BASE
from auditor.tasks import Split
from common.errors import NotPossible
from common.metrics import timed


def anchors(work: Work) -> Group | None:
    """Questions of the run's suites, as many as the settings say, by their hashes; None if there are none.

    Only those that are answered in words and marked without help: what a judge says may move by itself.
    """
    items = sorted(
        {
            item.content_hash: item
            for suite in work.order.suites
            for item in suite.items
            if item.grader.kind not in (GraderKind.CHOICE, GraderKind.JUDGE, GraderKind.COMMAND)
        }.values(),
        key=lambda item: item.content_hash,
    )[: work.order.settings.health.anchors]
    # Items of several suites may share an id; here the place in the order names them.
    named = tuple(item.model_copy(update={"item_id": f"anchor-{place}"}) for place, item in enumerate(items))
    return Group(Split.RETENTION, named, suite_id="anchors") if named else None


def identity_in(start: e.RunStarted, epoch: str) -> str:
    """What answers are cached under since a run accepted that evaluation had drifted; empty: none has."""
    return f"{start.record.student}@{epoch}" if epoch else start.record.student


async def check(work: Work) -> bool:
    """Whether answers from before count no longer. Raises NotPossible(EVALUATION_DRIFTED)."""
    group = anchors(work)
    if group is None:
        return False

    async def measure() -> Kept[e.AnchorsMeasured]:
        with timed("answering"):
            progress = work.journal.progress("anchors", 0, "")
            # Where a drift is accepted, what the base says now is what it is compared with from then on.
            now_as = work.examiner.known_as(identity_in(work.start, work.order.run_id))
            repeated_as = work.examiner.known_as(identity_in(work.start, f"{work.order.run_id}/repeated"))
            papers = [
                (await examiner.examine([BASE], [group], progress))[BASE]
                for examiner in (work.examiner, now_as, repeated_as)
            ]
        first, now, repeated = [paper.result(group) for paper in papers]
        return measured(first, now, repeated, accepted=work.order.settings.accept_drift)

    event = await work.journal.step("anchors", measure)
    if event.drifted and not event.accepted:
        raise NotPossible(
            f"evaluation itself has drifted: the frozen base answers {event.changed} of {event.now.questions} anchor "
            f"questions otherwise than it did, and {event.unstable} otherwise when asked twice in a row. Find out what "
            "changed (model files, software, threads), or order the run with accept_drift to measure anew",
            reason="EVALUATION_DRIFTED",
        )
    return event.drifted


def measured(first: Marked, now: Marked, repeated: Marked, *, accepted: bool) -> Kept[e.AnchorsMeasured]:
    """Marks are compared, not texts: what is right stays right."""
    changed = sum(old.score != new.score for old, new in zip(first.marks, now.marks, strict=True))
    unstable = sum(one.score != other.score for one, other in zip(now.marks, repeated.marks, strict=True))
    drifted = changed > unstable
    event = e.AnchorsMeasured(
        first=first.score,
        now=now.score,
        repeated=repeated.score,
        changed=changed,
        unstable=unstable,
        drifted=drifted,
        accepted=drifted and accepted,
        record=e.AnchorsMeasured.Record(marks=now.marks, repeated=repeated.marks),
    )
    return Kept(event, answers_of(now.marks, repeated.marks))
