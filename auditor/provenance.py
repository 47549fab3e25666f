"""Everything the ledger knows of one edit, with texts: what GetEdit answers.

Texts come from payloads by digest; where one was erased its field stays empty, and the rest of the record stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from auditor.crew import edit_of
from auditor.events import EVENTS, CandidateScored, CandidateTrained, UpdateJudged, UpdateTrained
from auditor.findings import Comparison, Gate, GateKind, Score
from auditor.graders.desk import is_silent
from auditor.graders.lexical import contains
from auditor.keys import GraderKind
from auditor.ledger.store import texts
from auditor.peers import EditOrigin
from auditor.projections import Projections
from auditor.recorder import Recorder
from auditor.requests import EditState
from auditor.tasks import EvaluationItem, Split, Suite, Task
from auditor.views import EditSummary, EditView, LedgerReference, RunView
from common.errors import InvalidRequest, NotFound, Violation
from common.types import Digest, Domain, SelfEdit, Software
from common.versions import Version


class QuestionResult(Domain):
    item_id: str
    task_id: str = ""
    suite_id: str = ""
    split: Split
    question: str = ""
    accepted_answers: tuple[str, ...] = ()
    answer_before: str = ""
    answer_after: str = ""
    score_before: float
    score_after: float
    version_before: str
    version_after: str
    seed: int
    grader: GraderKind | None = None
    lexical_before: float | None = None
    lexical_after: float | None = None


class EditRecord(Domain):
    summary: EditSummary
    edit: SelfEdit | None = None
    origin: EditOrigin | None = None
    context: Digest | None = None
    title: str
    versions: tuple[Version, ...]
    reward_results: tuple[QuestionResult, ...] = ()
    holdout_results: tuple[QuestionResult, ...] = ()
    forgotten: tuple[QuestionResult, ...] = ()
    gates: tuple[Gate, ...]
    accepted_version: str
    decided_by: str
    config_sha256: str
    ledger: tuple[LedgerReference, ...]
    reward_before: Score | None = None
    reward_after: Score | None = None
    holdout_before: Score | None = None
    holdout_after: Score | None = None
    retention_before: Score | None = None
    retention_after: Score | None = None
    auditor_software: Software


def find_edit(views: Projections, prefix: str) -> EditView:
    """The edit that a digest, or its first 6 characters or more, names; of equal ones the accepted, else the newest.

    Raises NotFound, or InvalidRequest when several edits begin like that.
    """
    found = [view for view in (*views.edits, *views.composed) if view.sha256.startswith(prefix)]
    if not found:
        raise NotFound("no such edit", ids={"edit": prefix})
    if len({view.sha256 for view in found}) > 1:
        raise InvalidRequest([Violation("edit", f"{prefix} is ambiguous; give more characters of the digest")])
    return max(found, key=lambda view: (view.state is EditState.ACCEPTED, view.seq))


async def edit_record(recorder: Recorder, views: Projections, view: EditView) -> EditRecord:
    """Puts the record together."""
    run = views.run(view.run_id)
    scored_events, versions, judged = await recorder.run(_long_parts, recorder, view)
    comparisons = [(scored, c) for scored in scored_events for c in scored.record.comparisons]
    own = {view.proposed.task_id} if view.proposed.task_id else {task.name for task in run.tasks}
    found = judged.record if judged else UpdateJudged.Record()
    held_out = [c for c in found.holdout if c.task_id in own]
    forgotten = [c for c in found.retention if c.score_before > c.score_after]
    used = [*(c for _, c in comparisons), *held_out, *forgotten]
    wanted = {
        view.sha256,
        view.proposed.record.origin,
        view.said,
        *(c.before for c in used),
        *(c.after for c in used),
    } - {""}
    content = await recorder.run(texts, recorder.ledger, wanted)
    items = await recorder.run(items_of, recorder, run, used, views)
    rewarded = [
        question_result(
            c,
            items,
            content,
            version_before=scored.record.parent_version,
            version_after=scored.version,
            seed=scored.seed,
        )
        for scored, c in comparisons
    ]
    after = judged.version if judged else ""
    edit, origin = content[view.sha256], content.get(view.proposed.record.origin)
    return EditRecord(
        summary=view.summary,
        edit=edit_of(edit.encode()) if edit else None,
        origin=EditOrigin.model_validate_json(origin) if origin else None,
        context=None if view.composed_of else view.proposed.record.context,
        title=view.proposed.record.title,
        versions=versions,
        reward_results=tuple(rewarded),
        holdout_results=tuple(
            question_result(
                c, items, content, version_before=found.parent_version, version_after=after, seed=found.seed
            )
            for c in held_out
        ),
        forgotten=tuple(
            question_result(
                c, items, content, version_before=_reference(found, c), version_after=after, seed=found.seed
            )
            for c in forgotten
        ),
        gates=tuple(with_opinion(gate, content.get(view.said, "")) for gate in view.gates),
        accepted_version=view.accepted_version,
        decided_by=view.decided_by,
        config_sha256=run.config_sha256,
        ledger=tuple(view.references),
        reward_before=sum((scored.before for scored in scored_events), Score()) if scored_events else None,
        reward_after=sum((scored.after for scored in scored_events), Score()) if scored_events else None,
        holdout_before=_total(held_out, items, content, after=False) if judged else None,
        holdout_after=_total(held_out, items, content, after=True) if judged else None,
        retention_before=judged.retention_before if judged else None,
        retention_after=judged.retention_after if judged else None,
        auditor_software=run.software,
    )


def _long_parts(
    recorder: Recorder, view: EditView
) -> tuple[list[CandidateScored], tuple[Version, ...], UpdateJudged | None]:
    """What the projections leave in the ledger, because it grows with what is asked: trials, versions, judgement."""
    links = recorder.ledger.at([*view.scored, *(seq for _, seq in view.versions), view.judged_seq])
    found = {seq: EVENTS[link.type].model_validate(link.payload) for seq, link in links.items()}
    scored = [event for seq in view.scored if isinstance(event := found[seq], CandidateScored)]
    trained = [found[seq] for _, seq in view.versions]
    versions = tuple(event.version for event in trained if isinstance(event, CandidateTrained | UpdateTrained))
    judged = found.get(view.judged_seq)
    return scored, versions, judged if isinstance(judged, UpdateJudged) else None


def with_opinion(gate: Gate, said: str) -> Gate:
    """The policy gate with what the policy model said, if it said anything and that was not erased."""
    if gate.kind is not GateKind.POLICY or not said:
        return gate
    return gate.model_copy(update={"reason": f"{gate.reason}: {said}"})


def question_result(
    c: Comparison,
    items: Mapping[tuple[str, str, str], EvaluationItem],
    content: Mapping[str, str],
    *,
    version_before: str,
    version_after: str,
    seed: int,
) -> QuestionResult:
    item = items.get((c.task_id, c.suite_id, c.item_id))
    judged = item is not None and item.grader.kind is GraderKind.JUDGE
    return QuestionResult(
        item_id=c.item_id,
        task_id=c.task_id,
        suite_id=c.suite_id,
        split=c.split,
        question=item.question if item else "",
        accepted_answers=item.answers if item else (),
        answer_before=content[c.before],
        answer_after=content[c.after],
        score_before=c.score_before,
        score_after=c.score_after,
        version_before=version_before,
        version_after=version_after,
        seed=seed,
        grader=item.grader.kind if item else None,
        # Of an erased answer there is nothing to say.
        lexical_before=contains(content[c.before], item) if item and judged and content[c.before] else None,
        lexical_after=contains(content[c.after], item) if item and judged and content[c.after] else None,
    )


def _reference(record: UpdateJudged.Record, c: Comparison) -> str:
    """Retention items are compared with the run's start version, earlier tasks' holdout with the parent."""
    return record.retention_version if c.split is Split.RETENTION else record.parent_version


def _total(
    comparisons: Iterable[Comparison],
    items: Mapping[tuple[str, str, str], EvaluationItem],
    content: Mapping[str, str],
    *,
    after: bool,
) -> Score:
    total = Score()
    for c in comparisons:
        answer, correct = (c.after, c.score_after) if after else (c.before, c.score_before)
        silent = is_silent(content[answer], items.get((c.task_id, c.suite_id, c.item_id)))
        total += Score(questions=1, correct=correct, empty=silent)
    return total


def items_of(
    recorder: Recorder, run: RunView, used: Iterable[Comparison], views: Projections
) -> dict[tuple[str, str, str], EvaluationItem]:
    """Items by (task, suite, item). Tasks of earlier runs are looked up in the newest run that had them."""
    runs = [*sorted(views.runs.values(), key=lambda other: other.seq), run]
    payloads: dict[tuple[str, str], str] = {}
    for other in runs:
        payloads |= {(task.name, ""): task.payload for task in other.tasks}
        payloads |= {("", suite.name): suite.payload for suite in other.suites}
    found: dict[tuple[str, str, str], EvaluationItem] = {}
    for task_id, suite_id in {(c.task_id, c.suite_id) for c in used}:
        data = recorder.ledger.payload(payloads[task_id, suite_id])
        if data is None:
            continue
        content = json.loads(data)
        if suite_id:
            items: Iterable[EvaluationItem] = Suite.model_validate(content).items
        else:
            task = Task.model_validate(content)
            items = (*task.tau, *task.retention)
        for item in items:
            found.setdefault((task_id, suite_id, item.item_id), item)
    return found
