"""Base against live on every holdout question of a finished run: what GetRun answers beside the counts.

Read from the scores that auditor/finish.py recorded; nothing is asked again. Called by the servicer.
"""

from __future__ import annotations

from auditor.events import VersionScored
from auditor.findings import Comparison, Mark
from auditor.ledger.store import texts
from auditor.peers import BASE
from auditor.projections import Projections
from auditor.provenance import QuestionResult, items_of, question_result
from auditor.recorder import Recorder
from auditor.tasks import Split


async def holdout_results(recorder: Recorder, views: Projections, run_id: str) -> tuple[QuestionResult, ...]:
    """One result a holdout question, in the order of the tasks; empty for a run that has not finished.

    Raises NotFound for a run that nobody ordered.
    """
    run = views.run(run_id)
    if run.finished is None:
        return ()
    live = run.finished.live_version
    marks = await recorder.run(_final_marks, recorder, run_id)
    before, after = marks.get(BASE, {}), marks.get(live, {})
    compared = [
        Comparison(
            item_id=mark.item_id,
            task_id=task_id,
            split=Split.HOLDOUT,
            before=before[task_id, mark.item_id].answer,
            after=mark.answer,
            score_before=before[task_id, mark.item_id].score,
            score_after=mark.score,
        )
        for (task_id, _), mark in after.items()
    ]
    content = await recorder.run(texts, recorder.ledger, {name for c in compared for name in (c.before, c.after)})
    items = await recorder.run(items_of, recorder, run, compared, views)
    return tuple(question_result(c, items, content, version_before=BASE, version_after=live, seed=0) for c in compared)


def _final_marks(recorder: Recorder, run_id: str) -> dict[str, dict[tuple[str, str], Mark]]:
    """Marks by version, then by task and item."""
    found: dict[str, dict[tuple[str, str], Mark]] = {}
    for link in recorder.ledger.every_event(run_id=run_id):
        if link.type != VersionScored.kind:
            continue
        scored = VersionScored.model_validate(link.payload)
        if scored.purpose == "final" and scored.split is Split.HOLDOUT:
            own = found.setdefault(scored.version, {})
            own |= {(scored.task_id, mark.item_id): mark for mark in scored.record.marks}
    return found
